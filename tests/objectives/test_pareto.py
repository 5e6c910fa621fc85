"""Fronts: agreement with the definition, hypervolume, knee; NaN and duplicates."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import HwnasError
from hwnas.objectives.pareto import front, hypervolume, knee, reference_point

Points = list[tuple[float, float]]
# Few distinct values, so that ties and duplicates are common.
point = st.tuples(st.sampled_from(np.linspace(0, 1, 9).tolist()), st.integers(1, 9).map(float))
point_lists = st.lists(point, max_size=12)
any_point = st.one_of(point, st.sampled_from([(math.nan, 1.0), (0.9, math.nan), (0.5, math.inf)]))


def is_beaten(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return b[0] >= a[0] and b[1] <= a[1] and a != b


@given(points=st.lists(any_point, max_size=12))
def test_the_front_is_what_no_other_point_beats(points: Points) -> None:
    finite = [each for each in points if all(map(math.isfinite, each))]
    expected = {a for a in finite if not any(is_beaten(a, b) for b in finite)}
    indices = front(points).tolist()
    assert {points[i] for i in indices} == expected
    assert len(indices) == len(expected), "equal points are listed once"
    assert all(points.index(points[i]) == i for i in indices), "the first of equal points"
    latencies = [points[i][1] for i in indices]
    assert latencies == sorted(latencies)


@given(points=point_lists, extra=st.lists(point, max_size=1))
def test_adding_a_point_never_lowers_hypervolume(points: Points, extra: Points) -> None:
    reference = (-0.1, 10.0)
    assert hypervolume(points + extra, reference) >= hypervolume(points, reference) - 1e-12


@given(points=point_lists)
def test_hypervolume_is_that_of_the_front(points: Points) -> None:
    reference = (-0.1, 10.0)
    on_front = [points[i] for i in front(points)]
    assert hypervolume(points, reference) == pytest.approx(hypervolume(on_front, reference))


@given(points=st.lists(point, min_size=1, max_size=12))
def test_every_front_point_counts_against_the_reference_point(points: Points) -> None:
    reference = reference_point(points)
    whole = hypervolume(points, reference)
    for index in front(points):
        rest = [each for each in points if each != points[index]]
        assert hypervolume(rest, reference) < whole


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([], 0.0),
        ([(0.5, 2.0)], 0.5 * 8.0),
        ([(0.5, 2.0), (0.5, 2.0)], 0.5 * 8.0),
        ([(0.5, 2.0), (0.75, 4.0)], 0.5 * 8.0 + 0.25 * 6.0),
        ([(0.5, 2.0), (math.nan, 1.0), (0.9, math.inf)], 0.5 * 8.0),
        ([(0.5, 10.0), (0.5, 12.0)], 0.0),
    ],
)
def test_hypervolume_is_the_area_of_the_steps(points: Points, area: float) -> None:
    assert hypervolume(points, (0.0, 10.0)) == pytest.approx(area)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0.5, 1.0)], 0),
        ([(0.5, 1.0), (0.9, 2.0)], 1),
        ([(0.5, 1.0), (0.9, 2.0), (0.92, 10.0)], 1),
        ([(0.92, 10.0), (0.9, 2.0), (0.5, 1.0), (0.1, 9.0)], 1),
        ([(0.5, 1.0), (0.75, 2.0), (1.0, 3.0)], 2),
        ([(0.5, 1.0), (0.55, 2.0), (1.0, 3.0)], 2),
        ([(math.nan, 0.1), (0.5, 1.0)], 1),
    ],
    ids=["one", "two", "bend", "shuffled", "straight", "hollow", "nan"],
)
def test_the_knee_is_where_the_front_bends_most(points: Points, expected: int) -> None:
    assert knee(points) == expected


@given(points=st.lists(point, min_size=1, max_size=12), unit=st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_knee_is_on_the_front_whatever_the_unit(points: Points, unit: float) -> None:
    chosen = knee(points)
    assert chosen in front(points)
    assert knee([(accuracy, latency * unit) for accuracy, latency in points]) == chosen


def test_points_of_another_form_are_refused() -> None:
    with pytest.raises(HwnasError, match="must be"):
        front([(1.0, 2.0, 3.0)])
    with pytest.raises(HwnasError, match="reference"):
        hypervolume([(0.5, 1.0)], (0.0, math.nan))
    for function in (knee, reference_point):
        with pytest.raises(HwnasError, match="no point"):
            function([(math.nan, 1.0)])


def test_an_empty_list_has_an_empty_front() -> None:
    assert front([]).tolist() == []
