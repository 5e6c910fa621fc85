"""What each finished stage of a run found, so that no stage is done twice.

`stages.json` in the run folder maps a stage's key, such as ``search`` or ``train/3f2a…``, to the
JSON value that it returned. A stage that is not there has not been finished.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hwnas.engine.files import replace_file
from hwnas.errors import RunFolderError

_FILE = "stages.json"


class Journal:
    """The finished stages of one run.

    Args:
        folder: The run folder.

    Raises:
        RunFolderError: The file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / _FILE
        self._stages: dict[str, dict[str, Any]] = self._read()

    def __contains__(self, key: str) -> bool:
        """Tell whether the stage is finished."""
        return key in self._stages

    def get(self, key: str) -> Any:
        """Return what the stage found, or None if it is not finished."""
        stage = self._stages.get(key)
        return None if stage is None else stage["value"]

    def seconds(self) -> Iterator[tuple[str, float]]:
        """Yield key and duration of each finished stage, in the order of finishing."""
        for key, stage in self._stages.items():
            yield key, float(stage["seconds"])

    def once(self, key: str, work: Callable[[], Any]) -> tuple[Any, float]:
        """Return what the stage found before, or do it now and remember.

        Args:
            key: Name of the stage.
            work: Does it; returns a JSON value.

        Returns:
            The value, and the seconds that it took when it was done.
        """
        if key not in self._stages:
            start = time.monotonic()
            value = work()
            self.put(key, value, time.monotonic() - start)
        stage = self._stages[key]
        return stage["value"], float(stage["seconds"])

    def put(self, key: str, value: Any, seconds: float) -> None:
        """Remember a stage as finished.

        Raises:
            RunFolderError: The file cannot be written.
        """
        self._stages[key] = {"value": value, "seconds": round(seconds, 3)}
        replace_file(self.path, (json.dumps(self._stages, indent=1) + "\n").encode())

    def forget(self, key: str) -> None:
        """Let a stage be done again; nothing happens if it is not finished."""
        if self._stages.pop(key, None) is not None:
            replace_file(self.path, (json.dumps(self._stages, indent=1) + "\n").encode())

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            stages = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"{self.path} cannot be read: {error}",
                "delete it to repeat the stages after the search",
            ) from error
        if not isinstance(stages, dict):
            raise RunFolderError(f"{self.path} is damaged", "delete it to repeat its stages")
        return stages
