"""Tables that several verbs print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from hwnas.supernet.tasks import TASKS

if TYPE_CHECKING:
    from hwnas.report.results import ArchitectureRecord, Candidate, HeadlineRow

_SHOWN = 8


def headline_table(rows: Sequence[HeadlineRow], chosen_path: Path | None = None) -> Table:
    """Return accuracy or perplexity, predicted and measured latency and size of each network."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    for column in (_quality(rows), "predicted", "measured", "params"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        accuracy = row.accuracy_test if row.accuracy_test is not None else row.accuracy_valid
        note = row.note
        if chosen_path is not None and row.onnx == chosen_path.name:
            note = f"←  {chosen_path}"
        table.add_row(
            Text(row.role, style="bold"),
            _scored(row.task, accuracy),
            milliseconds(None if row.predicted is None else row.predicted.ms),
            milliseconds(row.measured_ms),
            count(row.params),
            note,
        )
    return table


def candidates_table(candidates: Sequence[Candidate], budget_ms: float | None) -> Table:
    """Return the best candidates of a search, best first."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    quality = _quality(candidates)
    for column in ("candidate", quality, "predicted", "interval"):
        table.add_column(column, justify="left" if column == "candidate" else "right", no_wrap=True)
    for candidate in candidates[:_SHOWN]:
        predicted = candidate.predicted
        interval = ""
        if predicted is not None and predicted.low_ms is not None and predicted.high_ms is not None:
            interval = f"{predicted.low_ms:.3g} to {predicted.high_ms:.3g} ms"
        table.add_row(
            candidate.architecture.id,
            _scored(candidate.task, candidate.accuracy),
            milliseconds(None if predicted is None else predicted.ms),
            interval,
        )
    is_inherited = any(each.is_inherited for each in candidates)
    weights = "with shared weights" if is_inherited else "after its own training"
    table.caption = f"{quality} {weights}, on the validation split{_budget(budget_ms)}"
    table.caption_justify = "left"
    if len(candidates) > _SHOWN:
        table.caption += f"; {len(candidates) - _SHOWN} more in results.json"
    return table


def texts(named: Iterable[tuple[str, ArchitectureRecord]]) -> list[Text]:
    """Return a line for each network that has a text form, such as ``Genotype(…)``.

    Args:
        named: Role and architecture; one that has several roles is written once.
    """
    roles: dict[str, list[str]] = {}
    for role, each in named:
        if each.text is not None:
            roles.setdefault(each.text, []).append(role)
    return [Text.assemble((f"{', '.join(who)}  ", "bold"), text) for text, who in roles.items()]


def _quality(rows: Sequence[HeadlineRow] | Sequence[Candidate]) -> str:
    return TASKS.get(rows[0].task).quality if rows else "accuracy"


def _scored(task: str, score: float | None) -> str:
    return "–" if score is None else TASKS.get(task)().text(score)


def milliseconds(value: float | None) -> str:
    """Return three significant digits with the unit."""
    return "–" if value is None else f"{value:.3g} ms"


def count(value: int | None) -> str:
    """Return 41234 as ``41.2 k``."""
    if value is None:
        return "–"
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def _budget(budget_ms: float | None) -> str:
    return "" if budget_ms is None else f"; budget {budget_ms:g} ms"
