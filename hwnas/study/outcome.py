"""What a study tells and returns."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from hwnas.report.results import Candidate

RUNS = Path("runs")


class OnStage(Protocol):
    """Told of each finished stage: its name, a one-line summary, and its seconds."""

    def __call__(self, name: str, summary: str, seconds: float) -> None:
        """Take note of it."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        folder: The run folder.
        budget_ms: The latency budget, None without one.
        candidates: Compared networks, best first.
    """

    folder: Path
    budget_ms: float | None
    candidates: list[Candidate]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "run": str(self.folder),
            "budget_ms": self.budget_ms,
            "candidates": [each.model_dump(mode="json") for each in self.candidates],
        }


def new_run_path(name: str) -> Path:
    """Return a new path below ``runs/``: date, name, four random digits."""
    today = datetime.now(UTC).date().isoformat()
    return RUNS / f"{today}-{name}-{secrets.token_hex(2)}"
