"""The event log of a run: one JSON object a line in `events.jsonl`, appended as things happen."""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from hwnas.engine.files import replace_file, writing

Event: TypeAlias = dict[str, Any]
"""`time` (ISO 8601, UTC), `kind`, mostly `step` (the epoch), and what belongs to that kind."""


def read_events(path: Path) -> list[Event]:
    """Return all complete events; a half-written last line is left out.

    A file that does not exist has no events.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    events = []
    for line in data[: _end_of_last_line(data)].splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # A line damaged by a power cut costs that line, not the log.
        if isinstance(event, dict):
            events.append(event)
    return events


class EventLog:
    """Appends events to a file; a line that a kill left half-written is removed first.

    Args:
        path: The file, created when missing.

    Raises:
        RunFolderError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            path.touch()
            data = path.read_bytes()
            end = _end_of_last_line(data)
            if end < len(data):
                os.truncate(path, end)

    def append(self, kind: str, **fields: Any) -> Event:
        """Write one event and return it; numbers that are not finite become null.

        Raises:
            RunFolderError: The file cannot be written.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        event = {"time": now, "kind": kind} | {k: _finite(v) for k, v in fields.items()}
        line = json.dumps(event, allow_nan=False) + "\n"
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        return event

    def read(self) -> list[Event]:
        """Return all events."""
        return read_events(self.path)

    def sync(self) -> None:
        """Wait until the disk has all events."""
        with writing(self.path), self.path.open("a") as file:
            os.fsync(file.fileno())

    def roll_back(self, step: int) -> None:
        """Remove the events of steps after `step`; events without a step stay."""
        events = self.read()
        kept = [event for event in events if event.get("step", step) <= step]
        if len(kept) < len(events):
            replace_file(self.path, "".join(json.dumps(e) + "\n" for e in kept).encode())


def _end_of_last_line(data: bytes) -> int:
    return data.rfind(b"\n") + 1


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value
