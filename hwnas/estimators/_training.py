"""Training one child with weights of its own."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from hwnas.data import AnySplit, Dataset
from hwnas.estimators._seeds import derive_seed
from hwnas.graph import EVAL, TRAIN, Graph
from hwnas.supernet.config import OptimiserConfig
from hwnas.supernet.tasks import task_of
from hwnas.supernet.train import Trainer, evaluate
from hwnas.supernet.weights import WeightStore


@dataclass(frozen=True, slots=True)
class ChildEpoch:
    """One epoch of a child's training.

    Attributes:
        epoch: Number of finished epochs.
        loss: Mean training loss.
        accuracy: Mean score on the (augmented) training batches.
    """

    epoch: int
    loss: float
    accuracy: float


def train_child(
    graph: Graph,
    store: WeightStore,
    dataset: Dataset,
    config: OptimiserConfig,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
    trainer: Trainer | None = None,
) -> Iterator[ChildEpoch]:
    """Train a child on the train split, yielding after each epoch.

    What an epoch does depends on weights, optimiser, seed and its number only, so a training that
    was stopped can go on from the epoch's weights and optimiser.

    Args:
        graph: The child.
        store: Its weights, changed in place.
        dataset: Where the train split and its augmentation come from.
        config: The optimiser.
        epochs: Length of the training, for the schedule.
        batch_size: Images a step, or columns of a text; the whole split where that is smaller.
        seed: Decides order, augmentation and dropout.
        first_epoch: Number of epochs that are done already.
        trainer: Holds the optimiser of those; None for a new one.

    Raises:
        TrialFailed: The training diverged.
    """
    task = task_of(dataset)
    trainer = trainer or Trainer(store, config, epochs, task)
    size = min(batch_size, len(dataset.train))
    count = max(1, task.steps(dataset, size))
    for epoch in range(first_epoch, epochs):
        torch.manual_seed(derive_seed(seed, "child", epoch))
        found = task.epoch(dataset, size, derive_seed(seed, "child-order", epoch))
        steps = [
            trainer.step([graph], batch, epoch + step / count, TRAIN)
            for step, batch in enumerate(found)
        ]
        if epoch + 1 == epochs:
            trainer.optimiser.end(store.trainable(graph))
        yield ChildEpoch(
            epoch + 1,
            statistics.fmean(each.loss for each in steps),
            statistics.fmean(each.accuracy for each in steps),
        )


def score_child(
    graph: Graph, store: WeightStore, dataset: Dataset, split: AnySplit, batch_size: int
) -> float:
    """Return a trained child's score on a split, in [0, 1], with its running statistics."""
    task = task_of(dataset)
    return evaluate(graph, store, task.whole(dataset, split, batch_size), EVAL, task)
