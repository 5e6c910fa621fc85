"""What is said about times, on recorded ones.

`data/visits.json`: six networks in two copies each, 40 visits in turns, least thread CPU time of a
visit in nanoseconds; Intel Xeon (Sapphire Rapids), ONNX Runtime 1.32, one thread, 2026-11-23, while
other programs used both cores (98 % of the anchors were disturbed).
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from hwnas.latency.intervals import LEAST_VISITS, difference, repeatable

VISITS = json.loads((Path(__file__).parent / "data" / "visits.json").read_text())
DRAWS = 100


def halves(times, rng):
    mixed = rng.sample(times, len(times))
    return mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]


def test_a_second_measurement_is_inside_the_interval_as_often_as_promised():
    rng = random.Random(0)
    inside = []
    for copies in VISITS.values():
        for times in copies.values():
            for _ in range(DRAWS):
                first, second = halves(times, rng)
                low, high = repeatable(first)
                assert low <= min(first) <= high
                inside.append(low <= min(second) <= high)
    assert sum(inside) / len(inside) >= 0.95


def test_two_copies_of_a_network_are_hardly_ever_told_apart():
    rng = random.Random(0)
    told = []
    for copies in VISITS.values():
        rounds = list(zip(copies["a"], copies["b"], strict=True))
        for _ in range(DRAWS):
            # Which copy comes first alternates; the recording always had a before b.
            drawn = [pair[:: rng.choice((1, -1))] for pair in rng.sample(rounds, 20)]
            told.append(difference(*zip(*drawn, strict=True)).is_told)
    assert sum(told) / len(told) <= 0.05


@pytest.mark.parametrize("slower", [0.2, -0.15])
def test_a_difference_beyond_the_noise_is_told(slower):
    for copies in VISITS.values():
        found = difference(copies["a"], [each * (1 + slower) for each in copies["b"]])
        assert found.is_told
        assert found.low <= found.share <= found.high
        assert math.copysign(1, found.share) == math.copysign(1, slower)


def test_exact_ratios_are_found():
    times = [1.0, 2.0, 4.0, 3.0, 5.0, 1.5]
    found = difference(times, [1.25 * each for each in times])
    assert (found.share, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))


@pytest.mark.parametrize("visits", [1, LEAST_VISITS - 1])
def test_of_too_few_visits_nothing_is_said(visits):
    assert repeatable([1.0] * visits)[1] == math.inf
    assert not difference([1.0] * visits, [2.0] * visits).is_told


def test_the_interval_shrinks_with_more_visits():
    times = VISITS["FastestDet"]["a"]
    widths = [repeatable(times[:count])[1] - min(times[:count]) for count in (6, 12, 40)]
    assert widths == sorted(widths, reverse=True)
