from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hwnas.engine import Interrupted
from hwnas.engine.run_folder import RunFolder, RunRecord
from hwnas.errors import RunFolderError

CONFIG = {"name": "x", "search": {"epochs": 5, "kinds": [1, 2]}, "empty": {}, "text": "äß"}


def test_a_new_folder_can_be_read_and_opened_again(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a" / "run", CONFIG, seed=7, command="hwnas search x") as run:
        assert run.seed == 7
        assert run.state == "running"
        run.events.append("epoch", step=1)
    record = RunRecord(tmp_path / "a" / "run")
    assert record.config == CONFIG
    assert record.info["command"] == "hwnas search x"
    assert record.info["versions"]["torch"] == torch.__version__.split("+")[0] + (
        "+cpu" if "+cpu" in record.info["versions"]["torch"] else ""
    )
    assert [event["kind"] for event in record.read_events()] == ["epoch"]
    with RunFolder.open(tmp_path / "a" / "run", CONFIG) as run:
        assert run.config == CONFIG


def test_a_run_whose_process_is_gone_counts_as_interrupted(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, CONFIG).close()
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "running"
    assert RunRecord(tmp_path).state == "interrupted"


def test_a_second_run_in_the_same_folder_is_refused_with_the_process_id(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", CONFIG):
        for attempt in (
            lambda: RunFolder.open(tmp_path / "run"),
            lambda: RunFolder.create(tmp_path / "run", CONFIG),
        ):
            with pytest.raises(RunFolderError, match=f"in use by process {os.getpid()}"):
                attempt()
        # Reading is always possible.
        assert RunRecord(tmp_path / "run").state == "running"
    RunFolder.open(tmp_path / "run").close()


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys, time; from hwnas.engine.run_folder import RunFolder\n"
        "run = RunFolder.create(sys.argv[1], {}); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(RunFolderError, match=f"in use by process {process.pid}"):
        RunFolder.open(tmp_path)
    process.kill()
    process.communicate()
    RunFolder.open(tmp_path).close()


def test_a_folder_with_other_content_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(RunFolderError, match=r"not empty and not a run \(it contains 'thesis.tex'"):
        RunFolder.create(tmp_path, CONFIG)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_already_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, CONFIG, seed=1).close()
    with pytest.raises(RunFolderError, match="already holds a run") as caught:
        RunFolder.create(tmp_path, CONFIG, seed=2)
    assert "--resume" in str(caught.value.hint)
    assert RunRecord(tmp_path).seed == 1


def test_a_folder_left_by_a_kill_during_creation_can_be_used(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, CONFIG).close()
    for path in tmp_path.iterdir():
        if path.name not in ("run.lock", "config.yaml"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    RunFolder.create(tmp_path, CONFIG).close()


def test_another_configuration_is_refused_with_all_differences(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, CONFIG).close()
    other = {**CONFIG, "search": {"epochs": 9, "kinds": [1, 2], "new": True}}
    with pytest.raises(RunFolderError) as caught:
        RunFolder.open(tmp_path, other)
    assert "search.epochs: 5 in the run, 9 asked for" in caught.value.message
    assert "search.new: '(not set)' in the run, True asked for" in caught.value.message
    assert "kinds" not in caught.value.message
    RunFolder.open(tmp_path, {**CONFIG, "search": {"epochs": 5, "kinds": (1, 2)}}).close()


def test_what_is_no_run_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="does not exist"):
        RunRecord(tmp_path / "none")
    with pytest.raises(RunFolderError, match="not a run"):
        RunFolder.open(tmp_path)
    assert list(tmp_path.iterdir()) == []
    RunFolder.create(tmp_path, CONFIG).close()
    (tmp_path / "config.yaml").write_text("a: [1")
    with pytest.raises(RunFolderError, match=r"config\.yaml cannot be read") as caught:
        RunRecord(tmp_path)
    assert "\n" not in caught.value.message
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"run\.json cannot be read"):
        RunFolder.open(tmp_path)


def test_the_state_follows_how_the_work_ended(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, CONFIG) as run:
        with pytest.raises(ZeroDivisionError), run.running():
            _ = 1 / 0
        assert run.info["state"] == "failed"
        assert "ZeroDivisionError" in run.info["error"]
        with pytest.raises(Interrupted) as caught, run.running(), run.running():
            raise KeyboardInterrupt
        assert run.info["state"] == "interrupted"
        assert f"hwnas search --resume {tmp_path}" in str(caught.value.hint)
        assert caught.value.exit_code == 130
        with run.running():
            with run.running():
                pass
            assert run.state == "running"
        assert run.info["state"] == "finished"
        assert run.info["error"] is None


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Drop root's right to write everywhere for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_missing_permission_is_one_line_with_the_path(tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp())
    try:
        home.chmod(0o555)
        with nobody(), pytest.raises(RunFolderError, match="permission denied") as caught:
            RunFolder.create(home / "run", CONFIG)
        assert str(home / "run") in caught.value.message
        assert "choose another folder" in str(caught.value.hint)
        home.chmod(0o755)
        RunFolder.create(home / "run", CONFIG).close()
        for path in (home / "run").rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        (home / "run").chmod(0o555)
        with nobody():
            with pytest.raises(RunFolderError, match=r"cannot write .*run.lock: permission denied"):
                RunFolder.open(home / "run")
            record = RunRecord(home / "run")
            trials = record.read_trials()
            assert trials.count() == 0
            trials.close()
    finally:
        (home / "run").chmod(0o755)
        shutil.rmtree(home)


def fill(disk: Path) -> None:
    """Leave no room for another byte."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(512)):
            pass


def test_a_full_disk_is_one_line_and_loses_nothing(small_disk: Path) -> None:
    with RunFolder.create(small_disk / "run", CONFIG) as run:
        run.checkpoints.save(1, {"w": torch.ones(1000)}, {"a": 1})
        run.events.append("epoch", step=1)
        with pytest.raises(RunFolderError, match="the disk is full") as caught:
            run.checkpoints.save(2, {"w": torch.ones(2_000_000)}, {})
        assert str(small_disk / "run") in caught.value.message
        assert "free some space" in str(caught.value.hint)
        fill(small_disk)
        with pytest.raises(RunFolderError, match="the disk is full"), run.running():
            pass
        with pytest.raises(RunFolderError, match="the disk is full"):
            run.events.append("epoch", step=2, text="x" * 10_000)
        (small_disk / "filler").unlink()
    with RunFolder.open(small_disk / "run", CONFIG) as run:
        latest = run.checkpoints.load_latest()
        assert latest is not None
        assert latest.step == 1
        assert [event["step"] for event in run.events.read()] == [1]
        assert not list(run.path.glob("**/*.partial"))
