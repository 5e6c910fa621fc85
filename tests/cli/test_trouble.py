"""What goes wrong while a run goes on: budgets, tables, disks, kills, and two at once."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hwnas.engine.run_folder import RunFolder

if TYPE_CHECKING:
    from tests.cli.conftest import Python, Ran

    Hwnas = Callable[..., Ran]


def assert_refused(ran: Ran, code: int, *texts: str) -> None:
    assert ran.code == code, ran
    assert "Traceback" not in ran.err
    assert "Bug" not in ran.err
    for text in texts:
        assert text in ran.err, ran


@pytest.fixture
def search(tiny: Path, table: Path) -> list[object]:
    return ["search", tiny, "--set", f"latency.table={table}", "--out", "run"]


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def found_by(run: Path) -> Any:
    """What a search ends with, without what depends on the clock."""
    return json.loads((run / "stages.json").read_text())["search"]["value"]


# Budgets


def test_an_impossible_budget_is_refused_before_any_training(
    hwnas: Hwnas, search: list[object], tmp_path: Path
) -> None:
    ran = hwnas(*search, "--max-latency-ms", "0.0001")
    assert_refused(ran, 4, "InfeasibleConstraint", "meets 0.0001 ms", "fastest", "--max-latency-ms")
    suggested = re.search(r"--max-latency-ms to (\S+) or more", ran.err)
    assert suggested is not None
    assert not (tmp_path / "run/checkpoints").exists()
    assert hwnas(*search[:-1], "again", "--max-latency-ms", suggested[1]).code == 0


def test_an_impossible_training_time_is_refused_before_any_training(
    hwnas: Hwnas, search: list[object], tmp_path: Path
) -> None:
    ran = hwnas(*search, "--set", "objective.max_train_time_s=0.0001")
    assert_refused(ran, 4, "InfeasibleConstraint", "trains in 0.0001 s", "max_train_time_s to")
    assert not (tmp_path / "run/checkpoints").exists()


# Tables


def test_a_truncated_table_is_refused(hwnas: Hwnas, tiny: Path, table: Path) -> None:
    text = table.read_text()
    Path("cut.json").write_text(text[: len(text) // 2])
    for verb in ("check", "search"):
        ran = hwnas(verb, tiny, "--set", "latency.table=cut.json")
        assert_refused(ran, 3, "cut.json is damaged or truncated", "hwnas profile")


def test_a_missing_table_is_refused(hwnas: Hwnas, tiny: Path) -> None:
    ran = hwnas("search", tiny, "--set", "latency.table=none.json")
    assert_refused(ran, 3, "no latency table at none.json", "hwnas profile")


def test_a_table_of_another_device_is_refused(hwnas: Hwnas, tiny: Path, table: Path) -> None:
    value = json.loads(table.read_text())
    value["device"]["cpu"] = "Another CPU"
    Path("other.json").write_text(json.dumps(value))
    for words in (
        ["search", tiny, "--set", "latency.table=other.json"],
        ["profile", tiny, "--out", "other.json"],
    ):
        assert_refused(hwnas(*words), 5, "TableMismatch", "Another CPU", "hwnas profile")


# Run folders


def test_two_runs_in_one_folder_are_refused(hwnas: Hwnas, search: list[object], run: Path) -> None:
    assert_refused(hwnas(*search), 3, "already holds a run", "--resume run")
    with RunFolder.open(run):
        for words in (["search", "--resume", run], ["train", run], ["export", run]):
            assert_refused(hwnas(*words), 3, f"in use by process {os.getpid()}")


def test_a_folder_with_something_else_in_it_is_left_alone(
    hwnas: Hwnas, search: list[object], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.tex").write_text("years of work")
    assert_refused(hwnas(*search), 3, "not empty", "thesis.tex")
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_damaged_run_is_named_and_not_a_bug(hwnas: Hwnas, run: Path) -> None:
    for name in ("run.json", "config.yaml", "stages.json"):
        content = (run / name).read_bytes()
        (run / name).write_bytes(b"\x00{" + content[:20])
        assert_refused(hwnas("train", run), 3, name)
        (run / name).write_bytes(content)
    assert hwnas("train", run).code == 0


def test_a_corrupted_checkpoint_is_set_aside_and_the_one_before_is_used(
    hwnas: Hwnas, search: list[object], run: Path
) -> None:
    expected = found_by(run)
    forget_search(run)
    newest = max(run.glob("checkpoints/*/tensors.safetensors"))
    flip_a_byte(newest)
    ran = hwnas("search", "--resume", run)
    assert ran.code == 0, ran
    assert "damaged" in ran.out
    assert found_by(run) == expected


def test_if_every_checkpoint_is_corrupted_the_message_says_so(hwnas: Hwnas, run: Path) -> None:
    forget_search(run)
    for each in run.glob("checkpoints/*/tensors.safetensors"):
        flip_a_byte(each)
    assert_refused(hwnas("search", "--resume", run), 3, "checkpoint", "damaged", "Hint")


def test_lost_weights_are_named_with_the_command_that_makes_them(hwnas: Hwnas, run: Path) -> None:
    for each in run.glob("artifacts/*.safetensors"):
        each.write_bytes(b"short")
    ran = hwnas("export", run, "--out", "x.onnx")
    assert_refused(ran, 3, ".safetensors cannot be read", "hwnas train")
    command = re.search(r"hwnas (train .*)", ran.err)
    assert command is not None
    assert hwnas(*shlex.split(command[1])).code == 0
    assert hwnas("export", run, "--out", "x.onnx").code == 0


def forget_search(run: Path) -> None:
    stages = json.loads((run / "stages.json").read_text())
    kept = {key: value for key, value in stages.items() if key in ("profile", "budget")}
    (run / "stages.json").write_text(json.dumps(kept))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


# Disks


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a small memory disk; only root may."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
        mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("size", ["16k", "96k", "160k"])
def test_a_full_disk_is_reported_wherever_it_is_met(
    hwnas: Hwnas, tiny: Path, table: Path, mount: Callable[[str], Path], size: str
) -> None:
    disk = mount(f"size={size}")
    ran = hwnas("search", tiny, "--set", f"latency.table={table}", "--out", disk / "run")
    assert ran.code == 3, ran
    assert re.search("full|No space|no space", ran.err), ran
    assert "Bug" not in ran.err
    assert "Hint" in ran.err


def test_a_search_that_met_a_full_disk_goes_on_when_there_is_room(
    hwnas: Hwnas, tiny: Path, table: Path, mount: Callable[[str], Path], finished_run: Path
) -> None:
    disk = mount("size=160k")
    ran = hwnas("search", tiny, "--set", f"latency.table={table}", "--out", disk / "run")
    assert ran.code == 3, ran
    subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
    assert hwnas("search", "--resume", disk / "run").code == 0
    assert found_by(disk / "run") == found_by(finished_run)


def test_no_write_permission_is_reported(
    hwnas: Hwnas, tiny: Path, table: Path, mount: Callable[[str], Path]
) -> None:
    disk = mount("ro")
    ran = hwnas("search", tiny, "--set", f"latency.table={table}", "--out", disk / "run")
    assert_refused(ran, 3, "read-only", "choose another folder")
    assert_refused(hwnas("init", "digits_demo", disk / "x.yaml"), 3, "cannot be written")
    assert_refused(hwnas("profile", tiny, "--out", disk / "x.json"), 3, "cannot write")


def test_a_report_can_be_written_elsewhere_from_a_run_that_is_read_only(
    hwnas: Hwnas, run: Path, mount: Callable[[str], Path]
) -> None:
    disk = mount("size=50m")
    shutil.copytree(run, disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert_refused(hwnas("report", disk / "run"), 3, "report.html", "--out")
    assert hwnas("report", disk / "run", "--out", "report.html").code == 0


# Kills


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_prints_the_command_that_continues_it(
    python: Python, hwnas: Hwnas, search: list[object], tmp_path: Path, number: int
) -> None:
    process = python.start(*search, "--set", "search.epochs=100000")
    wait_for(lambda: any((tmp_path / "run").glob("checkpoints/*/state.json")), process)
    process.send_signal(number)
    ran = python.finish(process)
    assert_refused(ran, 130, "Interrupted", "hwnas search --resume run")
    assert RunFolder.open(tmp_path / "run").state == "interrupted"


def test_a_search_killed_at_any_moment_ends_as_one_that_was_not(
    python: Python, hwnas: Hwnas, search: list[object], tmp_path: Path
) -> None:
    more = ["--set", "search.epochs=30"]
    assert hwnas(*search[:-1], "calm", *more).code == 0
    rng = random.Random(os.urandom(8))
    process = python.start(*search, *more)
    wait_for((tmp_path / "run/run.json").exists, process)
    time.sleep(rng.uniform(0.0, 1.5))
    process.kill()
    python.finish(process)
    assert hwnas("search", "--resume", "run").code == 0
    assert found_by(tmp_path / "run") == found_by(tmp_path / "calm")


def test_a_training_killed_at_any_moment_ends_as_one_that_was_not(
    python: Python, hwnas: Hwnas, run: Path, tmp_path: Path
) -> None:
    calm = Path(shutil.copytree(run, tmp_path / "calm"))
    words = ["--again", "--epochs", 30]
    assert hwnas("train", calm, *words).code == 0
    process = python.start("train", run, *words)
    wait_for(lambda: any(run.glob("artifacts/train-*/*/state.json")), process)
    time.sleep(random.Random(os.urandom(8)).uniform(0.0, 0.5))
    process.kill()
    python.finish(process)
    assert hwnas("train", run, "--epochs", 30).code == 0
    (one,), (other,) = (
        [value["value"] for key, value in stages.items() if key.startswith("train/")]
        for stages in (json.loads((each / "stages.json").read_text()) for each in (run, calm))
    )
    assert one | {"train_time_s": 0} == other | {"train_time_s": 0}
