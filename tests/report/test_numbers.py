"""Numbers: as people read them, and the statistics that judge a run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from hwnas.report import formats
from hwnas.report.figures import cleaned
from hwnas.report.results import LatencyPrediction
from hwnas.report.statistics import describe_tau, kendall_tau, percentile

scores = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=20)


@given(scores)
def test_kendall_tau_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)
    ours = kendall_tau(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(kendalltau(first, second).statistic)


@pytest.mark.parametrize(
    ("tau", "word"),
    [
        (1.0, "perfectly"),
        (0.95, "almost perfectly"),
        (0.5, "partly"),
        (0, "not at all"),
        (-1, "in reverse"),
    ],
)
def test_a_rank_correlation_has_a_word(tau: float, word: str) -> None:
    assert describe_tau(tau) == word


def test_percentiles_interpolate() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([7.0], 90) == 7.0
    assert percentile([1.0, 2.0], 100) == 2.0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (formats.percent(0.9725), "97.2 %"),
        (formats.milliseconds(0.74218), "0.742 ms"),
        (formats.milliseconds(12.345), "12.3 ms"),
        (formats.milliseconds(2e-7), "2.00e-07 ms"),
        (formats.significant(0.0), "0"),
        (formats.significant(math.nan), "–"),
        (formats.count(41_200), "41.2 k"),
        (formats.count(999), "999"),
        (formats.seconds(0.42), "0.42 s"),
        (formats.seconds(725), "12 min 5 s"),
        (formats.seconds(12_000), "3 h 20 min"),
        (
            formats.prediction(LatencyPrediction(ms=1, low_ms=0.9, high_ms=1.1)),
            "1.00 ms (0.900–1.10)",
        ),
        (formats.prediction(LatencyPrediction(ms=1)), "1.00 ms"),
    ],
)
def test_numbers_are_written_as_people_read_them(text: str, wanted: str) -> None:
    assert text.replace("\u202f", " ") == wanted


@pytest.mark.parametrize(
    "form",
    [
        formats.percent,
        formats.significant,
        formats.milliseconds,
        formats.prediction,
        formats.count,
        formats.seconds,
        formats.date,
    ],
)
def test_what_is_not_known_is_a_dash(form: object) -> None:
    assert form(None) == formats.MISSING  # type: ignore[operator]


def test_figures_hold_no_markup_of_users_and_no_nan() -> None:
    figure = {"text": ["<a href='x'>a</a><br>b & c"], "y": (1.0, math.nan, math.inf), "n": None}
    assert cleaned(figure) == {
        "text": ["&lt;a href='x'&gt;a&lt;/a&gt;<br>b &amp; c"],
        "y": [1.0, None, None],
        "n": None,
    }
