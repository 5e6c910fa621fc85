from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from hwnas.engine import Interrupted, Silent
from hwnas.engine.run_folder import RunFolder, RunRecord
from hwnas.engine.trials_db import TrialState
from hwnas.errors import HwnasError, RunFolderError, TrialFailed
from hwnas.strategies import UNTOLD_IDS

Make = Callable[..., RunFolder]


class Killed(BaseException):
    """Stands for a kill: nothing in the engine handles it."""


class Bomb(Silent):
    """Raises at the n-th sign of progress: any training batch, strategy step or epoch."""

    def __init__(self, moment: int, what: type[BaseException] = Killed) -> None:
        self.left = moment
        self.what = what

    def advance(self, task: str, steps: int = 1) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.what


@pytest.fixture(scope="module")
def uninterrupted(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of a run that nobody disturbed, by strategy."""
    outcomes = {}
    for strategy in ("random", "enas"):
        path = tmp_path_factory.mktemp("whole") / strategy
        with RunFolder.create(path, {}, seed=3) as run:
            search = small.build(run, strategy)
            search.run()
            outcomes[strategy] = small.outcome(search)
    return outcomes


def test_a_search_trains_the_weights_and_stores_every_trial(
    small: ModuleType, folder: Make
) -> None:
    search = small.build(folder(), "enas", epochs=6, batch_size=32, controller_steps=5)
    search.run()
    events = [event for event in search.folder.events.read() if event["kind"] == "epoch"]
    assert [event["step"] for event in events] == list(range(1, 7))
    assert events[-1]["loss"] < 0.75 * events[0]["loss"]
    assert events[-1]["accuracy_mean"] > 0.3  # chance: 0.1
    assert all(event["peak_memory_mb"] > 0 for event in events)
    assert "strategy/entropy" in events[0]
    trials = search.folder.trials.all()
    assert [trial.id for trial in trials] == list(range(6 * 5 * 5))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert [trial.epoch for trial in trials] == [i for i in range(6) for _ in range(25)]
    over = [t.metrics.latency_ms > small.BUDGET_MS for t in trials[-25:] if t.metrics]
    assert events[-1]["infeasible_share"] == pytest.approx(sum(over) / len(over))
    assert search.folder.state == "finished"


def test_a_strategy_may_learn_from_a_later_epoch_on_also_after_a_kill(
    small: ModuleType, folder: Make
) -> None:
    """Until then there are no trials, and children are those of the untaught strategy."""
    late = small.build(folder(), "enas", teach_from=2)
    late.run()
    trials = late.folder.trials.all()
    assert [(each.id, each.epoch) for each in trials] == [(i, 2) for i in range(15)]
    assert late.strategy.diagnostics()["updates"] == 1  # of ten trials
    with pytest.raises(Killed):  # in the second step of the strategy
        small.build(folder("killed"), "enas", Bomb(17), teach_from=2).run()
    again = small.build(folder("killed"), "enas", teach_from=2)
    again.run()
    assert small.outcome(again) == small.outcome(late)


def test_two_runs_with_one_seed_are_the_same_and_another_seed_is_not(
    small: ModuleType, folder: Make, uninterrupted: dict[str, Any]
) -> None:
    again, other = small.build(folder("a"), "enas"), small.build(folder("b", seed=4), "enas")
    again.run()
    other.run()
    assert small.outcome(again) == uninterrupted["enas"]
    assert small.outcome(other)["weights"] != uninterrupted["enas"]["weights"]


@pytest.mark.parametrize(
    ("strategy", "moments"),
    # An epoch gives eight signs: four batches, three strategy steps, itself. One more at the start.
    [("random", (13,)), ("enas", (2, 6, 9, 5, 10)), ("enas", (22, 3)), ("enas", (25,))],
)
def test_a_run_killed_at_any_moment_ends_like_one_that_was_not(
    strategy: str,
    moments: tuple[int, ...],
    small: ModuleType,
    folder: Make,
    uninterrupted: dict[str, Any],
) -> None:
    for moment in moments:
        with pytest.raises(Killed):
            small.build(folder(), strategy, Bomb(moment)).run()
    search = small.build(folder(), strategy)
    search.run()
    result = small.outcome(search)
    for part, expected in uninterrupted[strategy].items():
        assert result[part] == expected, part


def test_a_process_killed_at_a_random_moment_resumes_to_the_same_bits(
    small: ModuleType, script: Path, tmp_path: Path, folder: Make, uninterrupted: dict[str, Any]
) -> None:
    killed = kill_once(script, tmp_path / "run", random.Random().uniform(0.0, 0.6))
    search = small.build(folder(), "enas")
    search.run()
    assert small.outcome(search) == uninterrupted["enas"], f"killed after {killed:.3f} s"


@pytest.mark.slow
def test_a_process_killed_many_times_resumes_to_the_same_bits(
    small: ModuleType, script: Path, tmp_path: Path, folder: Make
) -> None:
    with RunFolder.create(tmp_path / "whole", {}, seed=3) as run:
        whole = small.build(run, "enas", epochs=12)
        whole.run()
        expected = small.outcome(whole)
    rng = random.Random()
    delays = [kill_once(script, tmp_path / "run", rng.uniform(0.0, 1.5), 12) for _ in range(6)]
    search = small.build(folder(), "enas", epochs=12)
    search.run()
    assert small.outcome(search) == expected, f"killed after {delays} s"


def kill_once(script: Path, run: Path, delay: float, epochs: int = 3) -> float:
    """Run the script in its own process and kill it after a time; returns that time."""
    process = subprocess.Popen(
        [sys.executable, str(script), str(run), "enas", str(epochs)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return delay


def test_ctrl_c_says_how_to_go_on_and_going_on_works(
    small: ModuleType, folder: Make, uninterrupted: dict[str, Any]
) -> None:
    run = folder()
    with pytest.raises(Interrupted) as caught:
        small.build(run, "enas", Bomb(12, KeyboardInterrupt)).run()
    assert caught.value.exit_code == 130
    assert f"hwnas search --resume {run.path}" in str(caught.value.hint)
    run.close()
    assert RunRecord(run.path).state == "interrupted"
    search = small.build(folder(), "enas")
    search.run()
    assert small.outcome(search) == uninterrupted["enas"]


def test_a_damaged_checkpoint_costs_an_epoch_and_a_warning(
    small: ModuleType, folder: Make, uninterrupted: dict[str, Any]
) -> None:
    run = folder()
    small.build(run, "enas").run()
    path = run.path / "checkpoints" / "000003" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    search = small.build(folder(), "enas")
    search.run()
    assert small.outcome(search) == uninterrupted["enas"]
    [warning] = [e for e in search.folder.events.read() if e["kind"] == "warning"]
    assert str(path) in warning["text"]


@pytest.mark.parametrize("room", [120_000, 400_000, 900_000])
def test_a_disk_that_fills_up_loses_nothing(
    room: int, small: ModuleType, small_disk: Path, uninterrupted: dict[str, Any]
) -> None:
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
    filler = small_disk / "filler"
    filler.write_bytes(bytes(free - room))
    with RunFolder.create(small_disk / "run", {}, seed=3) as run:
        with pytest.raises(RunFolderError, match="disk is full") as caught:
            small.build(run, "enas").run()
        assert "free some space" in str(caught.value.hint)
    filler.unlink()
    with RunFolder.open(small_disk / "run") as run:
        search = small.build(run, "enas")
        search.run()
        assert small.outcome(search) == uninterrupted["enas"]


def test_missing_trials_are_noticed(small: ModuleType, folder: Make) -> None:
    run = folder()
    small.build(run, "random").run()
    run.trials.delete_after(3)
    with pytest.raises(RunFolderError, match="holds 4 trials, the checkpoint 3 needs 45"):
        small.build(folder(), "random").run()


def test_a_finished_run_has_nothing_left_to_do(small: ModuleType, folder: Make) -> None:
    small.build(folder(), "random").run()
    small.build(folder(), "random", Bomb(2)).run()


def test_the_time_budget_ends_the_search_after_an_epoch_and_survives_a_kill(
    small: ModuleType, folder: Make
) -> None:
    search = small.build(folder(), "random", epochs=50, time_budget_s=0.5)
    search.run()
    done = len(search.folder.checkpoints.steps())
    assert 0 < search.restore() < 50
    again = small.build(folder(), "random", epochs=50, time_budget_s=0.5)
    again.run()
    assert len(again.folder.checkpoints.steps()) == done


def test_training_and_teaching_ask_for_ids_that_never_meet(small: ModuleType, folder: Make) -> None:
    search = small.build(folder(), "random")
    asked: list[int] = []
    ask = search.strategy.ask
    search.strategy.ask = lambda ids: asked.extend(ids) or ask(ids)  # type: ignore[method-assign]
    search.run()
    told = [id for id in asked if id < UNTOLD_IDS]
    untold = [id - UNTOLD_IDS for id in asked if id >= UNTOLD_IDS]
    assert told == list(range(45))
    assert untold == list(range(3 * 2 * search.batches.train_count))


def test_a_reward_that_is_not_a_number_fails_the_trial_only(
    small: ModuleType, folder: Make
) -> None:
    search = small.build(folder(), "enas", epochs=1)
    numbers = itertools.count()
    object.__setattr__(search.judge, "reward", lambda m: float("nan") if next(numbers) % 2 else 0.5)
    search.run()
    failed = search.folder.trials.all(TrialState.FAILED)
    assert failed
    assert all(trial.reward is None and trial.error for trial in failed)
    [event] = search.folder.events.read()
    assert event["failed_trials"] == len(failed)


def test_training_that_diverges_says_so(small: ModuleType, folder: Make) -> None:
    search = small.build(folder(), "random", optimiser={"learning_rate": 1e30, "clip_norm": 1e30})
    with pytest.raises(HwnasError, match="diverged at epoch"):
        search.run()
    assert search.folder.info["state"] == "failed"


def test_numbers_reach_the_tracker_once_an_epoch(small: ModuleType, folder: Make) -> None:
    search = small.build(folder(), "random")
    seen: list[tuple[int, float]] = []
    search._track = lambda step, values: seen.append((step, values["loss"]))
    search.run()
    assert [step for step, _ in seen] == [1, 2, 3]
    assert seen[0][1] > 0


def test_the_search_does_not_touch_the_test_split(
    small: ModuleType, folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = small.build(folder(), "random")
    kind = type(search.batches._dataset)
    monkeypatch.setattr(kind, "_read_test", lambda self: pytest.fail("the test split was read"))
    search.run()
    with pytest.raises(HwnasError, match="locked"):
        _ = search.batches._dataset.test


def test_threads_of_torch_are_left_alone(small: ModuleType, folder: Make) -> None:
    before = torch.get_num_threads()
    small.build(folder(), "random").run()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_that_diverged_begins_anew_with_other_children(
    small: ModuleType, folder: Make, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    """What a diverged attempt did to weights, momentum and trials is rolled back."""
    run = folder()
    search = small.build(run, "enas", recoveries=2)
    trained: list[tuple[int, int]] = []
    original = type(search)._train

    def train(self: Any, number: int, attempt: int) -> dict[str, float]:
        trained.append((number, attempt))
        found = original(self, number, attempt)
        if number == epoch and attempt < 2:
            raise TrialFailed("training diverged")
        return found

    monkeypatch.setattr(type(search), "_train", train)
    search.run()
    assert [each for each in trained if each[0] == epoch] == [(epoch, 0), (epoch, 1), (epoch, 2)]
    assert len(trained) == search.settings.epochs + 2
    assert run.trials.count() == search.settings.epochs * 15
    warnings = [each for each in run.events.read() if each["kind"] == "warning"]
    assert [each["attempt"] for each in warnings] == [1, 2]

    # The third attempt starts from what the epoch started from: a search that was lucky at once
    # with the same children ends with the same bits.
    again = small.build(folder("again"), "enas", recoveries=2)
    monkeypatch.setattr(
        type(again), "_train", lambda self, n, a: original(self, n, 2 if n == epoch else a)
    )
    again.run()
    assert small.outcome(again)["weights"] == small.outcome(search)["weights"]


def test_without_recoveries_left_the_search_ends(
    small: ModuleType, folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = small.build(folder(), "random", recoveries=1)

    def diverge(self: Any, number: int, attempt: int) -> dict[str, float]:
        raise TrialFailed("training diverged")

    monkeypatch.setattr(type(search), "_train", diverge)
    with pytest.raises(TrialFailed, match="diverged"):
        search.run()
