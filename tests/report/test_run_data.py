"""A run folder is read as far as it can be, and the rest is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hwnas.errors import RunFolderError
from hwnas.report.run_data import RunData, Trial


def test_a_whole_folder_is_read_without_problems(make_folder: Callable[..., Path]) -> None:
    run = RunData.load(make_folder())
    assert run.problems == ()
    assert len(run.trials) == 200
    assert len(run.complete_trials) == 195
    assert run.results is not None
    assert run.budget_ms == 2.0
    assert run.plugin("space") == "enas_micro"
    failed = next(trial for trial in run.trials if trial.state == "failed")
    assert failed.message == "the loss became NaN in epoch 3"


@pytest.mark.parametrize(
    "missing", ["config.yaml", "run.json", "events.jsonl", "trials.db", "results.json"]
)
def test_a_missing_file_is_named_and_the_rest_is_read(
    make_folder: Callable[..., Path], missing: str
) -> None:
    run = RunData.load(make_folder(leave_out=(missing,)))
    assert run.problems == (f"{missing} does not exist yet",)
    assert run.budget_ms == 2.0


@pytest.mark.parametrize(
    "damaged", ["config.yaml", "run.json", "events.jsonl", "trials.db", "results.json"]
)
def test_a_damaged_file_costs_only_its_own_content(
    make_folder: Callable[..., Path], damaged: str
) -> None:
    folder = make_folder()
    (folder / damaged).write_bytes(b"\x00\xff{[: not this")
    run = RunData.load(folder)
    if damaged == "events.jsonl":  # Lines that cannot be read are left out, as in a killed run.
        assert run.events == ()
    else:
        assert len(run.problems) == 1
        assert damaged in run.problems[0]
    assert run.trials or damaged == "trials.db"


def test_a_half_written_last_event_is_left_out(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"kind": "epoch", "step": 21, "los')
    run = RunData.load(folder)
    assert len(run.events) == 20
    assert run.problems == ()


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "nothing"
    if make:
        folder.mkdir()
    with pytest.raises(RunFolderError, match="not a run folder"):
        RunData.load(folder)


def test_the_last_value_counts_where_an_epoch_was_repeated() -> None:
    events = [
        {"kind": "epoch", "step": 2, "loss": 2.0},
        {"kind": "epoch", "step": 1, "loss": 3.0},
        {"kind": "resumed", "step": 1, "loss": 99.0},
        {"kind": "epoch", "step": 2, "loss": 1.0, "ok": True, "text": "x", "gone": None},
    ]
    run = RunData(Path("run"), events=tuple(events))
    assert run.series == {"loss": ([1, 2], [3.0, 1.0])}
    assert run.step_unit == "epoch"


def test_the_budget_comes_from_the_configuration_without_results() -> None:
    assert RunData(Path("r"), config={"objective": {"max_latency_ms": 3}}).budget_ms == 3.0
    assert RunData(Path("r"), config={"objective": None}).budget_ms is None


def test_a_trial_without_latency_does_not_meet_a_budget() -> None:
    trial = Trial(0, "complete", "id")
    assert trial.meets(None)
    assert not trial.meets(1.0)
