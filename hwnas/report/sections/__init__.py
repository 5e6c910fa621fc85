"""The report's sections: one file each, found by the registry.

A section reads a `RunData` and returns parts (`hwnas.report.parts`); it never touches a file and
never writes HTML of its own. To add one, add a file here that registers a class:

```python
@SECTIONS.register("wall_clock")
class WallClock(Section):
    \"\"\"How long each stage took.\"\"\"

    order = 95
    title = "Wall clock"

    def applicable(self, run: RunData) -> str | None:
        return None if run.results else "The run has no results yet."

    def render(self, run: RunData) -> Fragment:
        return (Text("…"),)
```
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from hwnas.registry import PluginConfig, Registry
from hwnas.report.parts import Callout, Fragment, Heading, Part
from hwnas.report.run_data import RunData


class Section(ABC):
    """One section of the report.

    Attributes:
        order: Where it stands; the headline is 10, the trials table 100.
        title: Its heading.
    """

    order: ClassVar[int]
    title: ClassVar[str]

    class Config(PluginConfig):
        """Settings of the section."""

    def __init__(self, config: PluginConfig | None = None) -> None:
        self.config = config if config is not None else type(self).Config()

    @abstractmethod
    def applicable(self, run: RunData) -> str | None:
        """Return why this run cannot be drawn, in a sentence; None where it can."""

    @abstractmethod
    def render(self, run: RunData) -> Fragment:
        """Return the section's parts for one run."""

    def compare(self, runs: Sequence[RunData]) -> Fragment:
        """Return the section's parts for several runs: by default one after the other."""
        parts: list[Part] = []
        for run in runs:
            reason = self.applicable(run)
            parts.append(Heading(run.name))
            parts.extend(self.render(run) if reason is None else (Callout("info", reason),))
        return tuple(parts)


SECTIONS: Registry[Section] = Registry("section", "hwnas.report.sections")
