"""Every error that hwnas raises on purpose.

```
HwnasError                 exit code 1
├── UserInputError         3   a name, a value or a file that the user gave
│   ├── ConfigError        3   a configuration; collects all problems before raising
│   ├── ShapeError         3   shapes that do not fit together
│   └── RunFolderError     3   a run folder that is in use, foreign or damaged
├── InfeasibleConstraint   4   no architecture meets the budget
├── DeviceError            5   the device or its runtime failed
│   ├── TableMismatch      5   a latency table of another device, schema or runtime
│   └── KernelUnavailable  5   a kernel backend that was asked for is not here
└── TrialFailed            1   one evaluation failed
```

A message says what happened and what was expected; the hint says what to type next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class HwnasError(Exception):
    """Base of all errors that are the answer to a situation, not a bug.

    Args:
        message: What happened and what was expected, in one sentence.
        hint: What to do or type next.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[HwnasError], tuple[str, str | None]]:
        """Keep the hint when the error crosses a process boundary."""
        return type(self), (self.message, self.hint)

    def __str__(self) -> str:
        """Return the message, with the hint on a line of its own."""
        return self.message if self.hint is None else f"{self.message}\n  Hint: {self.hint}"


class UserInputError(HwnasError):
    """A name, value or file given by the user is not usable."""

    exit_code = 3


class ConfigError(UserInputError):
    """A configuration has one or more mistakes; all of them are reported at once.

    Args:
        source: Where the configuration came from, such as a file name.
        problems: One line for each mistake, each starting with the field's path.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        noun = "mistake" if len(problems) == 1 else "mistakes"
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"{source}: {len(problems)} {noun}{lines}")
        self.source = source
        self.problems = list(problems)

    def __reduce__(self) -> tuple[type[HwnasError], tuple[str, str | None]]:
        """Rebuild from the parts: the base class's two arguments do not fit here."""
        return type(self), (self.source, self.problems)  # type: ignore[return-value]


class ShapeError(UserInputError):
    """Shapes do not fit together."""


class RunFolderError(UserInputError):
    """A run folder is in use, is not one, or is damaged."""


class InfeasibleConstraint(HwnasError):
    """No architecture of the space can meet the constraint."""

    exit_code = 4


class DeviceError(HwnasError):
    """The device or its runtime could not do what was asked."""

    exit_code = 5


class TableMismatch(DeviceError):
    """A latency table does not belong to this device, runtime or schema."""


class KernelUnavailable(DeviceError):
    """A kernel backend that was asked for by name is not available here."""


class TrialFailed(HwnasError):
    """One evaluation failed; the search goes on without it."""


def nearest(name: str, names: Iterable[str], count: int = 3) -> str:
    """Return a hint that lists the names closest to a mistyped one.

    Args:
        name: The unknown name.
        names: The known names.
        count: How many to list at most.

    Returns:
        A sentence such as ``Did you mean 'enas', 'random'?``; the known names if none is close.
    """
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
    if close:
        return "Did you mean " + ", ".join(repr(each) for each in close) + "?"
    return "Known: " + ", ".join(known) + "." if known else "None is known."
