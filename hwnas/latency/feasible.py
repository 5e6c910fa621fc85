"""What latencies a space can reach, asked of the predictor before a search starts."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from hwnas.errors import InfeasibleConstraint
from hwnas.graph import Architecture
from hwnas.latency.predictor import LatencyPredictor, Prediction
from hwnas.spaces import SearchSpace


@dataclass(frozen=True, slots=True)
class Fastest:
    """The fastest architecture that was found.

    Attributes:
        architecture: The architecture.
        prediction: Its predicted latency.
        tried: How many architectures were predicted.
    """

    architecture: Architecture
    prediction: Prediction
    tried: int


@dataclass(frozen=True, slots=True)
class LatencyRange:
    """Predicted latencies of random architectures of a space, in milliseconds.

    Attributes:
        least: The fastest of the sample.
        p10: 10 % quantile.
        p50: Median.
        p90: 90 % quantile.
        most: The slowest of the sample.
        samples: How many architectures were predicted.
    """

    least: float
    p10: float
    p50: float
    p90: float
    most: float
    samples: int


def latency_range(
    space: SearchSpace, predictor: LatencyPredictor, *, samples: int = 200, seed: int = 0
) -> LatencyRange:
    """Predict random architectures of a space.

    Raises:
        As `LatencyPredictor.predict`.
    """
    rng = random.Random(seed)
    graphs = [space.graph(space.sample(rng)) for _ in range(samples)]
    ms = [each.ms for each in predictor.predict(graphs)]
    least, p10, p50, p90, most = (float(each) for each in np.quantile(ms, [0, 0.1, 0.5, 0.9, 1]))
    return LatencyRange(least, p10, p50, p90, most, samples)


def fastest(
    space: SearchSpace,
    predictor: LatencyPredictor,
    *,
    samples: int = 64,
    neighbours: int = 16,
    patience: int = 6,
    below_ms: float | None = None,
    seed: int = 0,
) -> Fastest:
    """Look for the fastest architecture: sample, then walk to better neighbours.

    Args:
        space: The space.
        predictor: Predicts its networks.
        samples: Random architectures to start with.
        neighbours: Neighbours tried in a step.
        patience: Steps without success before the walk ends.
        below_ms: Stop as soon as an architecture is predicted to be this fast.
        seed: Decides what is sampled.

    Raises:
        As `LatencyPredictor.predict`.
    """
    rng = random.Random(seed)
    best = _best(space, predictor, [space.sample(rng) for _ in range(samples)])
    tried, failures = samples, 0
    while failures < patience and (below_ms is None or best.prediction.ms > below_ms):
        # Later steps change more at once, to leave a local minimum.
        found = []
        for _ in range(neighbours):
            architecture = best.architecture
            for _ in range(1 + rng.randrange(failures + 1)):
                architecture = space.neighbour(architecture, rng)
            found.append(architecture)
        candidate = _best(space, predictor, found)
        tried += neighbours
        if candidate.prediction.ms < best.prediction.ms:
            best, failures = candidate, 0
        else:
            failures += 1
    return Fastest(best.architecture, best.prediction, tried)


def require_feasible(
    space: SearchSpace, predictor: LatencyPredictor, max_latency_ms: float, *, seed: int = 0
) -> Fastest:
    """Refuse a budget that no architecture can meet.

    Args:
        space: The space.
        predictor: Predicts its networks.
        max_latency_ms: The budget.
        seed: Decides where the search for the fastest starts.

    Returns:
        An architecture that meets the budget.

    Raises:
        InfeasibleConstraint: The fastest architecture found is slower.
    """
    found = fastest(space, predictor, below_ms=max_latency_ms, seed=seed)
    if found.prediction.ms > max_latency_ms:
        table, device = predictor.table.path, predictor.table.fingerprint.id
        enough = found.prediction.high_ms
        if not np.isfinite(enough):
            enough = 1.1 * found.prediction.ms
        raise InfeasibleConstraint(
            f"no architecture of the space meets {max_latency_ms:g} ms on {device}: the fastest of "
            f"{found.tried} tried is predicted at {found.prediction.ms:.3g} ms"
            + (f" (table {table})" if table else ""),
            f"allow {enough:.3g} ms or more, or give the space smaller networks",
        )
    return found


def _best(
    space: SearchSpace, predictor: LatencyPredictor, architectures: list[Architecture]
) -> Fastest:
    predictions = predictor.predict([space.graph(each) for each in architectures])
    at = min(range(len(predictions)), key=lambda i: predictions[i].ms)
    return Fastest(architectures[at], predictions[at], len(architectures))
