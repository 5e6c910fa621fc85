"""From the sum over kernels to a network.

A kernel that is measured alone, again and again, finds its data in cache; inside a network it may
not. The correction has few coefficients and none is negative: a factor for each family of kernels,
a cost for each kernel, a cost for weights that come from beyond the core's own cache, and a
constant. Families with little evidence are drawn to the common factor, and with too few networks
there is no correction at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

#: With fewer networks the plain sum is used.
MIN_NETWORKS = 6
#: How strongly a family's factor is drawn to the common one; the best in leave-one-out is used.
RIDGES = (0.003, 0.03, 0.3, 3.0)


@dataclass(frozen=True)
class NetworkSample:
    """A measured network.

    Attributes:
        family_ms: Sum of its kernels' times, by family.
        kernels: How many kernels it runs.
        weight_mib: Size of the weights that they read.
        ms: Measured time of the whole.
    """

    family_ms: Mapping[str, float]
    kernels: int
    weight_mib: float
    ms: float


@dataclass(frozen=True)
class Calibration:
    """Coefficients of the correction.

    ``ms = Σ_f factor[f] · family_ms[f] + per_kernel_ms · kernels + per_streamed_mib_ms ·
    streamed_mib + constant_ms``

    Attributes:
        factors: By family of kernels.
        common_factor: For families that no network had.
        per_kernel_ms: Cost of each kernel beyond its own time.
        per_streamed_mib_ms: Cost of weights that do not stay in the core's own cache.
        cache_mib: Size of that cache.
        constant_ms: Cost of a call.
        residuals: Relative errors ``measured / predicted − 1`` of the networks, each predicted
            from the others (leave one out); ascending by absolute value.
    """

    factors: Mapping[str, float]
    common_factor: float = 1.0
    per_kernel_ms: float = 0.0
    per_streamed_mib_ms: float = 0.0
    cache_mib: float = math.inf
    constant_ms: float = 0.0
    residuals: tuple[float, ...] = ()

    def kernel_ms(self, family: str, ms: float) -> float:
        """Return what a kernel contributes to a network."""
        return self.factors.get(family, self.common_factor) * ms + self.per_kernel_ms

    def predict(self, sample: NetworkSample) -> float:
        """Return the predicted time of a network; its `ms` is not looked at."""
        total = sum(
            self.factors.get(family, self.common_factor) * ms
            for family, ms in sample.family_ms.items()
        )
        streamed = float(streamed_mib(np.array([sample.weight_mib]), self.cache_mib)[0])
        return (
            total
            + self.per_kernel_ms * sample.kernels
            + self.per_streamed_mib_ms * streamed
            + self.constant_ms
        )

    def margin(self, coverage: float) -> float:
        """Return the relative half-width of an interval that covers new networks.

        Split-conformal with leave-one-out residuals: the ``⌈(n + 1) · coverage⌉``-th smallest
        absolute one. Infinite where there are too few networks for that coverage.
        """
        rank = math.ceil((len(self.residuals) + 1) * coverage)
        if rank > len(self.residuals):
            return math.inf
        return abs(self.residuals[rank - 1])


def streamed_mib(weight_mib: Array, cache_mib: float) -> Array:
    """Return how much of networks' weights comes from beyond the core's own cache.

    A network is run again and again, so a cache that holds all its weights never misses, and one
    that is smaller misses most of them (cyclic access under least-recently-used). The step is a
    ramp from 1 to 1.25 times the cache: measured on a 2 MiB cache, 2.1 MiB of weights cost nothing
    extra and 2.55 MiB cost 40 %.

    Args:
        weight_mib: `[A]` size of each network's weights.
        cache_mib: Size of the cache.

    Returns:
        `[A]` the part that is streamed, in MiB.
    """
    if math.isinf(cache_mib):
        return np.zeros_like(weight_mib)
    share = np.clip((weight_mib / cache_mib - 1.0) / 0.25, 0.0, 1.0)
    return np.asarray(share * weight_mib, np.float64)


def fit(samples: Sequence[NetworkSample], constant_ms: float, cache_mib: float) -> Calibration:
    """Fit a calibration by non-negative least squares on relative errors.

    Args:
        samples: Measured networks.
        constant_ms: What a call of the runtime costs: the plain sum adds it, the fit starts there.
        cache_mib: Size of the cache that one core has for itself.
    """
    if len(samples) < MIN_NETWORKS:
        plain = Calibration({}, constant_ms=constant_ms)
        residuals = [each.ms / max(plain.predict(each), 1e-9) - 1 for each in samples]
        return replace(plain, residuals=tuple(sorted(residuals, key=abs)))
    solver = _Solver(constant_ms, cache_mib)
    best: tuple[float, float, list[float]] | None = None
    for ridge in RIDGES:
        residuals = []
        for left_out in range(len(samples)):
            others = [*samples[:left_out], *samples[left_out + 1 :]]
            predicted = solver.solve(others, ridge).predict(samples[left_out])
            residuals.append(samples[left_out].ms / max(predicted, 1e-9) - 1)
        error = float(np.mean(np.square(residuals)))
        if best is None or error < best[0]:
            best = error, ridge, residuals
    assert best is not None
    return replace(solver.solve(samples, best[1]), residuals=tuple(sorted(best[2], key=abs)))


@dataclass(frozen=True)
class _Solver:
    """Solves for (common factor, factor by family…, streamed, per kernel, constant), all ≥ 0."""

    constant_ms: float
    cache_mib: float

    def solve(self, samples: Sequence[NetworkSample], ridge: float) -> Calibration:
        from scipy.optimize import nnls  # type: ignore[import-untyped]

        families = sorted({family for each in samples for family in each.family_ms})
        width = len(families) + 4
        measured = np.array([each.ms for each in samples])
        streamed = streamed_mib(np.array([each.weight_mib for each in samples]), self.cache_mib)
        equations = np.zeros((len(samples), width))
        for row, each in zip(equations, samples, strict=True):
            row[1:-3] = [each.family_ms.get(family, 0.0) for family in families]
            row[-2] = each.kernels
        equations[:, -3], equations[:, -1] = streamed, 1.0
        rows = list(equations / measured[:, None])
        targets = [1.0] * len(rows)
        strength = math.sqrt(ridge * len(samples))
        for position in range(len(families)):
            row = np.zeros(width)
            row[0], row[1 + position] = -strength, strength
            rows.append(row)
            targets.append(0.0)
        # The common factor is drawn to one, the constant to the cost of an empty call.
        typical = float(np.median(measured))
        for position, wish, scale in ((0, 1.0, 0.03), (width - 1, self.constant_ms, 0.3 / typical)):
            row = np.zeros(width)
            row[position] = strength * scale
            rows.append(row)
            targets.append(strength * scale * wish)
        solution = [float(each) for each in nnls(np.array(rows), np.array(targets))[0]]
        return Calibration(
            factors=dict(zip(families, solution[1:-3], strict=True)),
            common_factor=solution[0],
            per_streamed_mib_ms=solution[-3],
            per_kernel_ms=solution[-2],
            constant_ms=solution[-1],
            cache_mib=self.cache_mib,
        )
