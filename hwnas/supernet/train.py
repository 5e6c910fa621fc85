"""Training weights, shared or a child's own, and scoring children."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from hwnas.errors import TrialFailed
from hwnas.graph import EVAL, Graph, RunMode
from hwnas.supernet.config import OptimiserConfig
from hwnas.supernet.optimiser import Optimiser
from hwnas.supernet.run import run
from hwnas.supernet.tasks import Batch, Task
from hwnas.supernet.tasks.classification import Classification
from hwnas.supernet.weights import WeightStore


def learning_rate(config: OptimiserConfig, epoch: float, epochs: int) -> float:
    """Return the learning rate at a point of the training.

    ``exponential``: constant, then multiplied by `decay` at the start of each epoch from
    `decay_from` on (the public ENAS code for language models). ``cosine``: from the highest to the
    lowest rate, with warm restarts (SGDR, Loshchilov & Hutter 2017, equation 5) when
    `first_period` is set.

    Args:
        config: The schedule.
        epoch: Epochs done, with the fraction of the current one.
        epochs: Length of the training.
    """
    if epoch < config.warmup_epochs:
        return config.learning_rate * max(epoch, 1e-3) / config.warmup_epochs
    if config.schedule == "exponential":
        decays = max(0, int(epoch) - config.decay_from + 1)
        return max(config.learning_rate * config.decay**decays, config.final_learning_rate)
    start, period = config.warmup_epochs, max(epochs - config.warmup_epochs, 1e-9)
    if config.first_period is not None:
        period = float(config.first_period)
        while epoch >= start + period:
            start += period
            period *= config.period_multiplier
    share = min(max((epoch - start) / period, 0.0), 1.0)
    low, high = config.final_learning_rate, config.learning_rate
    return low + 0.5 * (high - low) * (1.0 + math.cos(math.pi * share))


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step saw.

    Attributes:
        loss: Mean cross-entropy over the children and the batch.
        accuracy: The task's score over the children: share of images whose class was right, or
            1 / perplexity.
        gradient_norm: Global norm before clipping.
    """

    loss: float
    accuracy: float
    gradient_norm: float


class Trainer:
    """Moves the weights of a store.

    Only the weights that a step's children use are moved: momentum and weight decay leave the
    others alone. (The ENAS code's optimiser also decays weights that no child used in the step.)

    Args:
        store: The weights.
        config: The optimiser's settings.
        epochs: Length of the training, for the schedule.
        task: What is learned.
    """

    def __init__(
        self,
        store: WeightStore,
        config: OptimiserConfig,
        epochs: int,
        task: Task | None = None,
    ) -> None:
        self.store = store
        self.config = config
        self.epochs = epochs
        self.task = task or Classification()
        self.optimiser = Optimiser(config)
        self._carried: list[Mapping[str, torch.Tensor]] = []

    def step(
        self, graphs: Sequence[Graph], batch: Batch, epoch: float, mode: RunMode
    ) -> StepResult:
        """Train on one batch with one or more children; their losses are averaged.

        States that recurrent children carry go to the children at the same places of the next
        step, whatever their cells are, as ENAS does.

        Args:
            graphs: The children.
            batch: A batch of the task, such as images `[N, C, H, W]` and labels `[N]`.
            epoch: Epochs done, with the fraction of the current one; drop-path grows with it.
            mode: TRAIN for a network of its own, TRAIN_SHARED for shared weights.

        Raises:
            TrialFailed: The loss is not finite; trainable weights are left as they were, the
                running statistics that mode TRAIN keeps are not.
        """
        mode = replace(mode, progress=min(1.0, epoch / self.epochs))
        used: dict[str, torch.Tensor] = {}
        mean, total, count = 0.0, 0.0, 0
        before = self._carried if len(self._carried) == len(graphs) else [{}] * len(graphs)
        self._carried = []
        for graph, carried in zip(graphs, before, strict=True):
            used.update(self.store.trainable(graph))
            found = self.task.run(graph, self.store, batch, mode, self.config, carried)
            (found.loss / len(graphs)).backward()
            mean += found.mean
            total += found.total
            count += found.count
            self._carried.append(found.carried)
        parameters = list(used.values())
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        if not (math.isfinite(mean) and bool(torch.isfinite(norm))):
            _clear(parameters)
            self._carried = []
            raise TrialFailed(
                f"training diverged at epoch {epoch:.2f}: the loss or its gradient is not finite",
                "lower the learning rate",
            )
        self.optimiser.step(used, learning_rate(self.config, epoch, self.epochs))
        if self.config.average_from is not None and epoch >= self.config.average_from:
            self.optimiser.average(used)
        _clear(parameters)
        return StepResult(mean / len(graphs), self.task.score(total, count), float(norm))


def _clear(parameters: Iterable[torch.Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None


@torch.no_grad()
def evaluate(
    graph: Graph,
    store: WeightStore,
    batches: Iterable[Batch],
    mode: RunMode = EVAL,
    task: Task | None = None,
) -> float:
    """Return a child's score in [0, 1]: the share of right answers, or 1 / perplexity.

    With shared weights the mode is BATCH: each batch is normalised by its own statistics, as in
    ENAS. The score then depends on the batch's size; use the same for all children.

    Args:
        graph: The child.
        store: The weights.
        batches: What to score on; recurrent states are carried from one to the next.
        mode: How batch norm behaves.
        task: What was learned; None for classification.

    Raises:
        TrialFailed: There is nothing to score on.
    """
    task = task or Classification()
    total, count = 0.0, 0
    carried: Mapping[str, torch.Tensor] = {}
    for batch in batches:
        found = task.run(graph, store, batch, mode, _PLAIN, carried)
        total, count, carried = total + found.total, count + found.count, found.carried
    if not count:
        raise TrialFailed("no images to evaluate on")
    return task.score(total, count)


#: Settings of a run that nothing is trained by.
_PLAIN = OptimiserConfig()


@torch.no_grad()
def recalibrate(graph: Graph, store: WeightStore, batches: Iterable[Batch]) -> WeightStore:
    """Return a child's own weights with the running statistics of its own activations.

    Shared weights carry no usable running statistics: those of one child are wrong for another.
    The mean of the batches' statistics makes a child ready for EVAL without any training.

    Args:
        graph: The child.
        store: The shared weights; they are copied, not changed.
        batches: Training batches; a few hundred images suffice. Recurrent states start from zeros
            in each.
    """
    child = store.restrict(graph)
    for count, batch in enumerate(batches, start=1):
        mode = RunMode(batch_statistics=True, momentum=1.0 / count)
        run(graph, child, batch[0], mode)
    return child
