from __future__ import annotations

import math

import numpy as np
import pytest

from hwnas.latency.calibration import Calibration, NetworkSample, fit, streamed_mib

TRUE = Calibration(
    {"conv": 1.3, "pool": 0.8}, per_kernel_ms=0.001, per_streamed_mib_ms=0.05, cache_mib=2.0,
    constant_ms=0.003,
)  # fmt: skip


def samples(rng, count, noise=0.0):
    made = []
    for _ in range(count):
        family_ms = {"conv": rng.uniform(0.1, 1.0), "pool": rng.uniform(0.01, 0.5)}
        sample = NetworkSample(family_ms, int(rng.integers(5, 60)), rng.uniform(0, 5), 0.0)
        ms = TRUE.predict(sample) * (1 + noise * rng.standard_normal())
        made.append(NetworkSample(family_ms, sample.kernels, sample.weight_mib, ms))
    return made


def test_known_coefficients_are_recovered(rng):
    found = fit(samples(rng, 200), constant_ms=0.003, cache_mib=2.0)
    assert found.factors["conv"] == pytest.approx(1.3, rel=0.03)
    assert found.factors["pool"] == pytest.approx(0.8, rel=0.06)
    assert found.per_kernel_ms == pytest.approx(0.001, rel=0.15)
    assert found.per_streamed_mib_ms == pytest.approx(0.05, rel=0.06)


def test_no_coefficient_is_negative_even_if_that_would_fit_better(rng):
    made = [
        NetworkSample({"conv": x, "pool": y}, 10, 0.0, max(x - 0.5 * y, 0.01))
        for x, y in rng.uniform(0.1, 1, (50, 2))
    ]
    found = fit(made, constant_ms=0.0, cache_mib=2.0)
    assert min(*found.factors.values(), found.per_kernel_ms, found.constant_ms) >= 0


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_intervals_cover_new_networks_as_often_as_stated(coverage):
    hits, total = 0, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        found = fit(samples(rng, 25, noise=0.05), constant_ms=0.003, cache_mib=2.0)
        margin = found.margin(coverage)
        for each in samples(rng, 50, noise=0.05):
            hits += abs(each.ms / found.predict(each) - 1) <= margin
            total += 1
    assert coverage - 0.06 <= hits / total <= coverage + 0.09


def test_too_few_networks_for_a_coverage_give_an_endless_interval(rng):
    found = fit(samples(rng, 8), constant_ms=0.003, cache_mib=2.0)
    assert math.isinf(found.margin(0.95))
    assert math.isfinite(found.margin(0.8))


def test_with_a_handful_of_networks_the_plain_sum_is_used(rng):
    found = fit(samples(rng, 3), constant_ms=0.004, cache_mib=2.0)
    sample = NetworkSample({"conv": 1.0, "pool": 0.5}, 10, 9.0, 0.0)
    assert found.predict(sample) == pytest.approx(1.504)


def test_a_family_without_evidence_gets_the_common_factor(rng):
    found = fit(samples(rng, 30), constant_ms=0.003, cache_mib=2.0)
    assert found.kernel_ms("norm", 1.0) == found.common_factor + found.per_kernel_ms


def test_weights_are_streamed_once_they_exceed_the_cache():
    sizes = np.array([0.0, 1.0, 2.0, 2.25, 2.5, 8.0])
    assert streamed_mib(sizes, 2.0) == pytest.approx([0, 0, 0, 1.125, 2.5, 8])
    assert not streamed_mib(sizes, math.inf).any()
