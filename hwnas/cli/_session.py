"""What one call of a verb prints, and where to."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.text import Text

import hwnas


class _Stoppable(Protocol):
    def stop(self) -> None: ...


class Session:
    """One call of a verb.

    Args:
        is_json: Print one JSON object and nothing else on stdout.
    """

    def __init__(self, *, is_json: bool = False) -> None:
        self.is_json = is_json
        self.resume_command: str | None = None
        self.stages: tuple[str, ...] = ()
        self._console = Console(highlight=False, emoji=False, markup=False)
        self._errors = Console(stderr=True, highlight=False, emoji=False, markup=False)
        self._progress: _Stoppable | None = None
        if not self._console.is_terminal:
            # Rich would fold tables at 80 columns in a file or a pipe.
            self._console.width = 160

    @property
    def console(self) -> Console:
        """The console of stdout."""
        return self._console

    @property
    def is_interactive(self) -> bool:
        """Whether bars and colours make sense."""
        return self._console.is_terminal and not self.is_json

    def say(self, what: RenderableType = "", style: str = "") -> None:
        """Print something, unless JSON was asked for; text is not folded."""
        if self.is_json:
            return
        if isinstance(what, (str, Text)):
            self._console.print(what, style=style or None, soft_wrap=True)
        else:
            self._console.print(what)

    def start(self, title: str) -> None:
        """Print the first lines: version, device and what is done."""
        self.say(Text.assemble((f"hwnas {hwnas.__version__}", "bold"), f"   {title}"))
        self.say()

    def stage(self, name: str, summary: str, seconds: float) -> None:
        """Print that a stage is finished; numbered where the verb has a fixed list of stages."""
        number = ""
        if name in self.stages:
            number = f"{self.stages.index(name) + 1}/{len(self.stages)} "
        self.say(Text.assemble((f"{number}{name:<9} ", "bold"), f"{summary:<62} {seconds:5.0f} s"))
        self._console.file.flush()

    def resumes(self, verb: str) -> Callable[[Path], None]:
        """Return a function that is told the run folder, so that Ctrl-C can say how to go on."""

        def remember(folder: Path) -> None:
            self.resume_command = command_line("hwnas", verb, "--resume", folder)
            self.say(Text.assemble(("run       ", "bold"), _short(folder)))

        return remember

    def complain(self, message: str, hint: str | None = None, label: str = "Hint") -> None:
        """Print an error to stderr."""
        self._errors.print(Text(message, style="red"), soft_wrap=True)
        if hint:
            self._errors.print(f"  {label}: {hint}", soft_wrap=True)

    def emit(self, value: Mapping[str, Any]) -> None:
        """Print the one JSON object."""
        print(json.dumps(value, indent=2, default=_plain, allow_nan=False))

    def finish(
        self,
        value: Mapping[str, Any],
        *,
        made: Sequence[tuple[str, Path]] = (),
        then: Sequence[tuple[str, str]] = (),
    ) -> None:
        """End the verb: the JSON object, or what was made and what to type next.

        Args:
            value: The JSON object.
            made: Label and path of everything that was written.
            then: Next commands with what they do.
        """
        self.stop_progress()
        if self.is_json:
            self.emit(value)
            return
        if made or then:
            self.say()
        for label, path in made:
            self.say(Text.assemble((f"{label:<8} ", "bold"), (_short(path), "green")))
        width = max((len(command) for command, _ in then), default=0)
        for index, (command, why) in enumerate(then):
            label = "Next" if index == 0 else ""
            self.say(
                Text.assemble((f"{label:<8} ", "bold"), f"{command:<{width}}   ", (why, "dim"))
            )

    def own_progress(self, progress: _Stoppable) -> None:
        """Remember what must be stopped before an error is printed."""
        self._progress = progress

    def stop_progress(self) -> None:
        """Take bars off the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def command_line(*words: object) -> str:
    """Return words as one line that can be pasted into a shell."""
    return shlex.join(str(word) for word in words)


def _short(path: Path) -> str:
    """Return a path relative to the working directory when it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
