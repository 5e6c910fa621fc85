"""Where output goes: a terminal gets bars and colours, everything else plain lines."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwnas.cli._duration import seconds_of
from hwnas.errors import UserInputError

if TYPE_CHECKING:
    from tests.cli.conftest import Ran

SCRIPT = """
import time
from hwnas.cli._progress import progress_for
from hwnas.cli._session import Session
session = Session()
progress = progress_for(session)
session.start("device")
progress.start("epochs", 4)
for epoch in range(4):
    progress.start("steps", 3)
    for step in range(3):
        progress.advance("steps")
        time.sleep(0.05)
    progress.note(f"epoch {epoch}")
    progress.advance("epochs")
session.stage("search", "done", 3.0)
session.finish({})
"""


def test_a_terminal_gets_bars_with_the_time_left_and_they_go_away() -> None:
    shown = in_terminal(SCRIPT)
    assert "\x1b[" in shown
    assert "━" in shown
    assert "left" in shown
    assert "4/4" in shown
    assert "epoch 3" in shown


def test_without_a_terminal_there_are_no_escape_codes_and_no_bars() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert "\x1b" not in done.stdout
    assert "━" not in done.stdout
    assert "epoch 3" in done.stdout
    assert done.stderr == ""


def test_a_path_is_never_folded(hwnas: Callable[..., Ran], tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    assert (
        str(folder.relative_to(tmp_path) / "x.yaml")
        in hwnas("init", "digits_demo", folder / "x.yaml").out
    )


def test_brackets_in_a_message_are_not_taken_for_markup(hwnas: Callable[..., Ran]) -> None:
    assert "[bold]x[/bold]" in hwnas("init", "[bold]x[/bold]", "x.yaml").err


def in_terminal(script: str) -> str:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # Linux: the other end was closed
                break
            if not data:
                break
            shown += data
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400), (" 2 h ", 7200)]
)
def test_durations_are_read_as_people_type_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-3s", "0", "1d", "3 minutes", "1:30"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UserInputError, match="not a duration"):
        seconds_of(text)
