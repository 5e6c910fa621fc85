"""Turns what is known of children into metrics and rewards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hwnas.graph.architecture import Architecture
from hwnas.objectives.metrics import Metrics

Predict = Callable[[Sequence[Architecture]], Sequence[float]]
"""Predicts one number for each architecture; one call for many is much faster."""


@dataclass(frozen=True)
class Judge:
    """What the loops need to know of the objective.

    Attributes:
        reward: Larger is better; anything but a finite number makes the trial fail.
        predict_latency: Predicts ms at batch 1, or None where latency plays no part.
        predict_train_time: Predicts seconds, or None where it is measured or plays no part.
        max_latency_ms: Budget, for counting who keeps to it.
        max_train_time_s: Budget, likewise.
    """

    reward: Callable[[Metrics], float]
    predict_latency: Predict | None = None
    predict_train_time: Predict | None = None
    max_latency_ms: float | None = None
    max_train_time_s: float | None = None

    def price(self, architectures: Sequence[Architecture]) -> list[Metrics]:
        """Return what can be predicted of each architecture; its accuracy is still 0."""
        nothing: list[float | None] = [None] * len(architectures)
        latencies = nothing if self.predict_latency is None else self.predict_latency(architectures)
        times = (
            nothing if self.predict_train_time is None else self.predict_train_time(architectures)
        )
        return [
            Metrics(
                accuracy=0.0,
                latency_ms=None if latency is None else float(latency),
                train_time_s=None if time is None else float(time),
            )
            for latency, time in zip(latencies, times, strict=True)
        ]

    def complete(self, priced: Metrics, measured: Metrics) -> Metrics:
        """Join a prediction and a measurement; a prediction wins: it is repeatable."""
        return replace(
            measured,
            latency_ms=measured.latency_ms if priced.latency_ms is None else priced.latency_ms,
            train_time_s=(
                measured.train_time_s if priced.train_time_s is None else priced.train_time_s
            ),
        )

    def score(self, metrics: Metrics) -> float | None:
        """Return the reward; None if it is not a finite number."""
        reward = self.reward(metrics)
        return reward if math.isfinite(reward) else None

    def is_feasible(self, metrics: Metrics) -> bool:
        """Tell whether all known metrics keep to their budgets."""
        return _keeps(metrics.latency_ms, self.max_latency_ms) and _keeps(
            metrics.train_time_s, self.max_train_time_s
        )


def measured_accuracy(accuracy: float) -> Metrics:
    """Return metrics of which only the accuracy is known."""
    return Metrics(accuracy=accuracy, latency_ms=None, train_time_s=None)


def _keeps(value: float | None, budget: float | None) -> bool:
    return value is None or budget is None or value <= budget
