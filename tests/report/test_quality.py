"""Scores in the words of the task that they are of."""

from __future__ import annotations

import pytest

from hwnas.report.quality import Quality


def test_accuracy_is_in_per_cent():
    quality = Quality("classification")
    assert quality.text(0.97249) == "97.2\u202f%"
    assert quality.text(0.97249, 2) == "97.25\u202f%"
    assert quality.all_drawn([0.5, None]) == [50.0, None]
    assert quality.axis("Validation")["title"]["text"] == "Validation accuracy (%)"
    assert "autorange" not in quality.axis("Validation")


def test_of_a_text_less_is_better_and_drawn_higher_up():
    quality = Quality("language_model")
    assert quality.text(1 / 5.3) == "5.3"
    assert quality.drawn(1 / 80) == pytest.approx(80)
    assert quality.drawn(0.0) is None, "an infinite perplexity cannot be drawn"
    axis = quality.axis("Validation")
    assert axis["title"]["text"] == "Validation perplexity"
    assert axis["autorange"] == "reversed"


def test_what_is_missing_is_a_dash():
    assert Quality("classification").text(None) == "–"
