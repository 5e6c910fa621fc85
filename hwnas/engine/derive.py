"""Compares the best children at the end of a one-shot search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hwnas.engine.config import SearchConfig
from hwnas.engine.judge import Judge, measured_accuracy
from hwnas.engine.progress import Progress, Silent
from hwnas.errors import InfeasibleConstraint
from hwnas.estimators._minibatches import Minibatches
from hwnas.graph import BATCH, EVAL
from hwnas.graph.architecture import Architecture
from hwnas.objectives.metrics import Metrics
from hwnas.spaces import SearchSpace
from hwnas.strategies import UNTOLD_IDS, Strategy
from hwnas.supernet.tasks import Batch
from hwnas.supernet.train import evaluate, recalibrate
from hwnas.supernet.weights import WeightStore

#: Ids of these samples lie beyond all ids that training steps ask for.
_FIRST_ID = 2 * UNTOLD_IDS
_DRAWS_PER_SAMPLE = 50
_CALIBRATION_BATCHES = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """One child of the final comparison.

    Attributes:
        architecture: What it is.
        accuracy: In [0, 1], with shared weights, over `derive_batches` validation batches.
        latency_ms: Predicted; None where latency plays no part.
        reward: The objective's; minus infinity if it is not a finite number.
        train_time_s: Predicted; None where it plays no part.
    """

    architecture: Architecture
    accuracy: float
    latency_ms: float | None
    reward: float
    train_time_s: float | None = None


class Derivation:
    """Takes children of the taught strategy and ranks them with the shared weights.

    Args:
        settings: The search's settings.
        space: The search space.
        strategy: The taught strategy; it is asked, never told.
        store: The shared weights.
        batches: The search's batches.
        judge: Prices and rewards children.
        progress: Told how far the comparison is.
    """

    def __init__(
        self,
        *,
        settings: SearchConfig,
        space: SearchSpace,
        strategy: Strategy,
        store: WeightStore,
        batches: Minibatches,
        judge: Judge,
        progress: Progress | None = None,
    ) -> None:
        self.settings = settings
        self.space = space
        self.strategy = strategy
        self.store = store
        self.batches = batches
        self.judge = judge
        self._progress = progress or Silent()

    def run(self, also: Iterable[Architecture] = ()) -> list[Candidate]:
        """Return candidates within the budgets, best reward first.

        `derive_samples` of them are new samples of the strategy, all different; its best guess and
        those of `also` are compared too. Samples over a budget are replaced by further ones, up to
        50 draws for each that is wanted; a strategy that has settled may yield fewer.

        Args:
            also: More to compare, such as the best trials of the search.

        Raises:
            InfeasibleConstraint: None of them keeps to the budgets; the message has the fastest.
        """
        chosen = self._choose(also)
        self._progress.start("comparison", len(chosen))
        candidates = []
        for architecture, priced in chosen.items():
            metrics = self.judge.complete(priced, measured_accuracy(self._accuracy(architecture)))
            reward = self.judge.score(metrics)
            candidates.append(
                Candidate(
                    architecture,
                    metrics.accuracy,
                    metrics.latency_ms,
                    float("-inf") if reward is None else reward,
                    metrics.train_time_s,
                )
            )
            self._progress.advance("comparison")
        # Ties go to the faster one; sorting is stable, so the order is repeatable.
        return sorted(candidates, key=lambda c: (-c.reward, c.latency_ms or 0.0))

    def _choose(self, also: Iterable[Architecture]) -> dict[Architecture, Metrics]:
        """Return the architectures within the budgets with their prices."""
        guess = self.strategy.best_guess()
        known = [*([] if guess is None else [guess]), *also]
        fastest: Metrics | None = None
        chosen: dict[Architecture, Metrics] = {}
        samples = 0
        for group, is_sample in self._groups(known):
            for architecture, priced in zip(group, self.judge.price(group), strict=True):
                if _is_faster(priced, fastest):
                    fastest = priced
                if architecture in chosen or not self.judge.is_feasible(priced):
                    continue
                if is_sample and samples == self.settings.derive_samples:
                    return chosen
                chosen[architecture] = priced
                samples += is_sample
        if not chosen:
            raise self._infeasible(fastest)
        return chosen

    def _groups(self, known: list[Architecture]) -> Iterator[tuple[Sequence[Architecture], bool]]:
        """Yield the known ones, then samples, a group at a time."""
        if known:
            yield list(dict.fromkeys(known)), False
        size = self.settings.derive_samples
        for group in range(_DRAWS_PER_SAMPLE):
            first = _FIRST_ID + group * size
            yield self.strategy.ask(range(first, first + size)), True

    def _accuracy(self, architecture: Architecture) -> float:
        graph = self.space.graph(architecture)
        count = min(self.settings.derive_batches, self.batches.valid_count)
        if self.settings.derive_statistics == "batch":
            return evaluate(graph, self.store, self._valid(count), BATCH, self.batches.task)
        calibration = self.batches.train_plain(_CALIBRATION_BATCHES)
        task = self.batches.task
        child = recalibrate(graph, self.store, calibration)
        return evaluate(graph, child, self._valid(count), EVAL, task)

    def _valid(self, count: int) -> Iterator[Batch]:
        return (self.batches.valid(number) for number in range(count))

    def _infeasible(self, fastest: Metrics | None) -> InfeasibleConstraint:
        budgets = []
        if self.judge.max_latency_ms is not None:
            best = "" if fastest is None else f" (the fastest needs {fastest.latency_ms:.3g} ms)"
            budgets.append(f"{self.judge.max_latency_ms:g} ms of latency{best}")
        if self.judge.max_train_time_s is not None:
            budgets.append(f"{self.judge.max_train_time_s:g} s of training time")
        return InfeasibleConstraint(
            f"none of {_DRAWS_PER_SAMPLE * self.settings.derive_samples} children that the "
            f"strategy proposed keeps to {' and '.join(budgets)}",
            "raise the budget, search longer, or use a reward that punishes excess more",
        )


def _is_faster(one: Metrics, other: Metrics | None) -> bool:
    if one.latency_ms is None:
        return False
    return other is None or other.latency_ms is None or one.latency_ms < other.latency_ms
