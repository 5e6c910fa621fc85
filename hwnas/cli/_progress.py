"""Shows the engine's progress: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hwnas.cli._session import Session


class Bars:
    """One bar a task, with the time that it took and the time left.

    Args:
        console: Where they are drawn.
        with_notes: Print notes above the bars.
    """

    def __init__(self, console: Console, *, with_notes: bool = True) -> None:
        self._with_notes = with_notes
        self._bars = Progress(
            TextColumn("  {task.description:<12}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def start(self, task: str, total: int) -> None:
        """Begin a task; one of that name that is known starts again."""
        # Started late, so that a verb without long tasks shows nothing.
        self._bars.start()
        if task in self._tasks:
            self._bars.reset(self._tasks[task], total=total)
        else:
            self._hide_finished()
            self._tasks[task] = self._bars.add_task(task, total=total)

    def advance(self, task: str, steps: int = 1) -> None:
        """Report that steps are done."""
        if task in self._tasks:
            self._bars.advance(self._tasks[task], steps)

    def note(self, text: str) -> None:
        """Print one line above the bars."""
        if self._with_notes:
            self._bars.console.print(f"  {text}", style="dim", soft_wrap=True)

    def stop(self) -> None:
        """Take the bars away."""
        self._bars.stop()
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks.clear()

    def _hide_finished(self) -> None:
        for name in [
            n for n, task in self._tasks.items() if self._bars.tasks and self._is_done(task)
        ]:
            self._bars.remove_task(self._tasks.pop(name))

    def _is_done(self, task: TaskID) -> bool:
        return any(each.id == task and each.finished for each in self._bars.tasks)


class Lines:
    """Notes as lines; tasks are silent.

    Args:
        session: Where they are printed.
        with_notes: Print them at all.
    """

    def __init__(self, session: Session, *, with_notes: bool = True) -> None:
        self._session = session
        self._with_notes = with_notes

    def start(self, task: str, total: int) -> None:
        """Say nothing."""

    def advance(self, task: str, steps: int = 1) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Print one line."""
        if self._with_notes:
            self._session.say(f"  {text}")
            self._session.console.file.flush()

    def stop(self) -> None:
        """Nothing is on the screen."""


def progress_for(session: Session, *, with_notes: bool = True) -> Bars | Lines:
    """Return what fits the place that stdout goes to; the session stops it before it ends.

    Args:
        session: The call of the verb.
        with_notes: Print the summaries of epochs and the like.
    """
    progress: Bars | Lines
    if session.is_interactive:
        progress = Bars(session.console, with_notes=with_notes)
    else:
        progress = Lines(session, with_notes=with_notes)
    session.own_progress(progress)
    return progress
