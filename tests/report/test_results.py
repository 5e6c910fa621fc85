"""results.json: what is written is read back, and what is damaged is refused with a reason."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hwnas.errors import RunFolderError
from hwnas.report.results import HeadlineRow, RunResults


def test_results_read_what_was_written(tmp_path: Path, results: RunResults) -> None:
    path = tmp_path / "results.json"
    results.write(path)
    assert RunResults.read(path) == results
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]


def test_numbers_that_are_not_finite_become_unknown(results: RunResults) -> None:
    row = results.headline[0].model_dump() | {"accuracy_test": math.nan, "measured_ms": math.inf}
    read = HeadlineRow(**row)
    assert read.accuracy_test is None
    assert read.measured_ms is None


def test_an_accuracy_in_per_cent_is_refused(results: RunResults) -> None:
    row = results.headline[0].model_dump()
    with pytest.raises(ValueError, match="less than or equal to 1"):
        HeadlineRow(**(row | {"accuracy_test": 91.2}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"schema_version": 1, "na', "damaged"),
        ('{"schema_version": 9, "name": "x", "created": "2026-11-22"}', "schema_version"),
        ('{"name": "x", "created": "2026-11-22T00:00:00Z", "surprise": 1}', "surprise"),
        ("[]", "damaged"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(
    tmp_path: Path, content: str, reason: str
) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(RunFolderError, match=reason):
        RunResults.read(path)


def test_a_missing_file_says_that_the_run_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no results yet"):
        RunResults.read(tmp_path / "results.json")


def test_the_chosen_row_is_found_by_its_role(make_results: Any) -> None:
    assert make_results().chosen_row.role == "knee"
    assert make_results(chosen="nobody").chosen_row is None


def test_the_file_is_plain_json(tmp_path: Path, results: RunResults) -> None:
    results.write(tmp_path / "results.json")
    value = json.loads((tmp_path / "results.json").read_text())
    assert value["headline"][1]["predicted"]["ms"] == pytest.approx(1.8972)
