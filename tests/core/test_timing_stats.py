"""hwnas._core.timing_statistics against numpy, and what each number means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas._core import timing_statistics

times = st.floats(0.0, 1e6, allow_subnormal=False)
timings = st.lists(st.tuples(times, times, times), min_size=1, max_size=40)


def reference(
    samples: np.ndarray, before: np.ndarray, after: np.ndarray, tolerance: float
) -> dict[str, Any]:
    """Compute the same statistics with numpy alone."""
    clean = np.quantile(np.concatenate([before, after]), 0.1, method="inverted_cdf")
    limit = clean * (1.0 + tolerance)
    kept = samples[(before <= limit) & (after <= limit)]
    used = kept if kept.size else samples
    return {
        "anchor_clean": clean,
        "accepted": kept.size,
        "minimum": used.min(),
        "median": np.median(used),
        "p20": np.quantile(used, 0.2),
        "p80": np.quantile(used, 0.8),
    }


@given(rows=timings, tolerance=st.floats(0.0, 2.0))
def test_the_statistics_are_those_of_numpy(
    rows: list[tuple[float, float, float]], tolerance: float
) -> None:
    samples, before, after = np.array(rows).T.copy()
    got = timing_statistics(samples, before, after, tolerance)
    expected = reference(samples, before, after, tolerance)
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name  # type: ignore[literal-required]


@given(rows=timings, tolerance=st.floats(0.0, 2.0))
def test_the_statistics_are_ordered_and_do_not_depend_on_the_order_of_samples(
    rows: list[tuple[float, float, float]], tolerance: float
) -> None:
    samples, before, after = np.array(rows).T.copy()
    got = timing_statistics(samples, before, after, tolerance)
    assert got["minimum"] <= got["p20"] <= got["median"] <= got["p80"] <= samples.max()
    backwards = timing_statistics(samples[::-1], before[::-1], after[::-1], tolerance)
    assert backwards == got


@given(rows=timings)
def test_a_wider_tolerance_accepts_no_fewer_samples(rows: list[tuple[float, float, float]]) -> None:
    samples, before, after = np.array(rows).T.copy()
    accepted = [
        timing_statistics(samples, before, after, tolerance)["accepted"]
        for tolerance in (0.0, 0.06, 0.5)
    ]
    assert accepted == sorted(accepted)


def test_a_neighbour_that_slows_a_third_of_the_run_does_not_move_the_estimate(
    rng: np.random.Generator,
) -> None:
    is_slow = np.arange(300) % 3 == 0
    slowdown = np.where(is_slow, 1.8, 1.0)
    samples = 5.0 * slowdown * (1.0 + 0.01 * rng.random(300))
    anchors = 0.1 * slowdown * (1.0 + 0.01 * rng.random((2, 300)))
    got = timing_statistics(samples, anchors[0], anchors[1], 0.06)
    assert got["accepted"] == 200
    assert got["anchor_clean"] == pytest.approx(0.1, rel=0.01)
    assert got["p80"] < 5.06


def test_a_sample_counts_only_if_both_its_anchors_are_clean() -> None:
    samples = np.array([9.0, 1.0, 2.0, 8.0])
    before = np.array([1.0, 1.0, 1.2, 1.0])
    after = np.array([1.0, 1.2, 1.0, 1.0])
    got = timing_statistics(samples, before, after, 0.06)
    assert (got["accepted"], got["minimum"]) == (2, 8.0)


def test_with_no_clean_sample_all_are_summarised_and_none_counts_as_accepted() -> None:
    got = timing_statistics(np.array([3.0, 4.0]), np.array([1.0, 2.0]), np.array([2.0, 1.0]), 0.06)
    assert (got["accepted"], got["minimum"], got["median"]) == (0, 3.0, 3.5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1e-9])
@pytest.mark.parametrize("operand", ["samples", "anchor_before", "anchor_after"])
def test_what_is_not_a_time_is_refused_by_place_and_value(operand: str, bad: float) -> None:
    operands = {name: np.ones(5) for name in ("samples", "anchor_before", "anchor_after")}
    operands[operand][3] = bad
    with pytest.raises(ValueError, match=rf"{operand}\[3\] = {bad:g} is not a time"):
        timing_statistics(**operands, tolerance=0.06)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.01])
def test_a_tolerance_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"tolerance = {bad:g}"):
        timing_statistics(np.ones(2), np.ones(2), np.ones(2), bad)


def test_an_empty_run_is_refused() -> None:
    with pytest.raises(ValueError, match="samples is empty"):
        timing_statistics(np.array([]), np.array([]), np.array([]), 0.06)


def test_operands_of_different_lengths_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="anchor_after has 3 entries, but samples has 2"):
        timing_statistics(np.ones(2), np.ones(2), np.ones(3), 0.06)


def test_a_clean_speed_that_the_caller_knows_is_used() -> None:
    samples, anchors = np.array([1.0, 2.0, 3.0]), np.array([10.0, 10.5, 20.0])
    known = timing_statistics(samples, anchors, anchors, 0.06, anchor_clean=19.0)
    assert (known["accepted"], known["anchor_clean"]) == (3, 19.0)
    own = timing_statistics(samples, anchors, anchors, 0.06)
    assert (own["accepted"], own["anchor_clean"]) == (2, 10.0)
    with pytest.raises(ValueError, match="anchor_clean"):
        timing_statistics(samples, anchors, anchors, 0.06, anchor_clean=-1.0)
