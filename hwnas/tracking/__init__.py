"""Trackers: where a run's numbers are shown besides the report. One file a tracker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Self

from hwnas.errors import UserInputError
from hwnas.registry import PluginConfig, Registry


class Tracker(ABC):
    """Receives named numbers while a run goes on.

    Args:
        config: The tracker's settings.
        folder: The run folder.
        first_step: Numbers of this step and later ones, kept from before a kill, are void.
    """

    Config: ClassVar[type[PluginConfig]] = PluginConfig

    def __init__(self, config: PluginConfig, folder: Path, first_step: int = 0) -> None:
        self.config = config
        self.folder = folder
        self.first_step = first_step

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Return what must be installed, as arguments to pip; None if nothing."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take in the numbers of one step."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""


TRACKERS: Registry[Tracker] = Registry("tracker", "hwnas.tracking")


class Trackers:
    """Several trackers as one.

    Args:
        names: Which to use: ``"auto"`` for all whose packages are installed. A tracker that is
            asked for by name must work.
        folder: The run folder.
        first_step: See `Tracker`.

    Raises:
        UserInputError: A name is unknown, or its package is not installed.
    """

    def __init__(
        self, names: Literal["auto"] | list[str], folder: Path, first_step: int = 0
    ) -> None:
        if names == "auto":
            kinds = [kind for _, kind in TRACKERS.items() if kind.missing() is None]
        else:
            kinds = [_installed(name) for name in names]
        self._trackers = [kind(kind.Config(), folder, first_step) for kind in kinds]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Pass the numbers on to all."""
        for tracker in self._trackers:
            tracker.log(step, values)

    def close(self) -> None:
        """Close all."""
        for tracker in self._trackers:
            tracker.close()

    def __enter__(self) -> Self:
        """Return the trackers themselves."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all."""
        self.close()


def _installed(name: str) -> type[Tracker]:
    kind = TRACKERS.get(name)
    missing = kind.missing()
    if missing is not None:
        raise UserInputError(
            f"the tracker {name!r} is not installed", f"install it with: pip install {missing}"
        )
    return kind
