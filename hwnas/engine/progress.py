"""How a long task tells how far it is, and what is raised when the user stops it."""

from __future__ import annotations

from typing import Protocol

from hwnas.errors import HwnasError


class Interrupted(HwnasError):
    """The user pressed Ctrl-C; the run is saved and the hint is the command that continues it."""

    exit_code = 130


class Progress(Protocol):
    """Receives progress; the command line draws bars with it."""

    def start(self, task: str, total: int) -> None:
        """Begin a task of `total` steps; a task of that name that is known starts again."""

    def advance(self, task: str, steps: int = 1) -> None:
        """Report that `steps` more steps of the task are done."""

    def note(self, text: str) -> None:
        """Say one line, such as a warning or the summary of an epoch."""


class Silent:
    """Progress that nobody watches."""

    def start(self, task: str, total: int) -> None:
        """Do nothing."""

    def advance(self, task: str, steps: int = 1) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""
