"""All trials, to sort and to download."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict

from hwnas.report import formats
from hwnas.report.parts import Cell, Column, Details, Download, Fragment, Part, Table, Text
from hwnas.report.run_data import RunData, Trial
from hwnas.report.sections import SECTIONS, Section

_MOST_ROWS = 500
_MOST_FAILURES = 200


@SECTIONS.register("trials_table")
class TrialsTable(Section):
    """All trials, to sort and to download; failed ones with their messages."""

    order = 100
    title = "Trials"

    def applicable(self, run: RunData) -> str | None:
        """Need a trial."""
        return None if run.trials else "The run has no trials yet, or keeps none."

    def render(self, run: RunData) -> Fragment:
        """Return counts, the table, the failures and the downloads."""
        failed = [trial for trial in run.trials if trial.state == "failed"]
        text = f"{len(run.complete_trials)} of {len(run.trials)} trials have a score"
        text += f"; {len(failed)} failed." if failed else "."
        parts: list[Part] = [
            Text(text),
            Download("Download JSON", f"{run.name}-trials.json", "application/json", _json(run)),
            Download("Download CSV", f"{run.name}-trials.csv", "text/csv", _csv(run)),
        ]
        ranked = sorted(run.trials, key=_by_reward)[:_MOST_ROWS]
        caption = "All trials, highest reward first."
        if len(run.trials) > len(ranked):
            caption = (
                f"The {len(ranked)} trials with the highest reward of {len(run.trials)}; "
                "the downloads have all."
            )
        parts.append(_table(ranked, run, caption))
        if failed:
            parts.append(Details(f"{len(failed)} failed trials", (_failures(failed),)))
        return tuple(parts)


def _by_reward(trial: Trial) -> tuple[bool, float, int]:
    return (trial.reward is None, -(trial.reward or 0.0), trial.trial_id)


def _table(trials: Sequence[Trial], run: RunData, caption: str) -> Table:
    columns = [
        Column("Trial", True),
        Column("State"),
        Column("Architecture"),
        Column("Reward", True),
        Column(run.quality.name.capitalize(), True),
        Column("Latency", True),
        Column("Training time", True),
    ]
    if run.budget_ms is not None:
        columns.append(Column("In budget"))
    return Table(columns, [_row(trial, run) for trial in trials], caption, is_sortable=True)


def _row(trial: Trial, run: RunData) -> list[Cell]:
    is_failed = trial.state == "failed"
    cells = [
        Cell(str(trial.trial_id), trial.trial_id),
        Cell(trial.state, level="error" if is_failed else None),
        Cell(trial.architecture_id, is_code=True),
        Cell(formats.significant(trial.reward, 4), trial.reward),
        Cell(run.quality.text(trial.accuracy, 2), trial.accuracy),
        Cell(formats.milliseconds(trial.latency_ms), trial.latency_ms),
        Cell(formats.seconds(trial.train_time_s), trial.train_time_s),
    ]
    if run.budget_ms is not None:
        is_known = trial.latency_ms is not None
        cells.append(Cell(("yes" if trial.meets(run.budget_ms) else "no") if is_known else "–"))
    return cells


def _failures(trials: Sequence[Trial]) -> Table:
    rows = [
        (
            Cell(str(trial.trial_id), trial.trial_id),
            Cell(trial.architecture_id, is_code=True),
            Cell(trial.message or "no message was kept"),
        )
        for trial in trials[:_MOST_FAILURES]
    ]
    columns = (Column("Trial", True), Column("Architecture"), Column("Message"))
    caption = "Failed trials; the search went on without them."
    return Table(columns, rows, caption, is_sortable=True)


def _json(run: RunData) -> str:
    return json.dumps([asdict(trial) for trial in run.trials], indent=1)


_CSV_COLUMNS = (
    "trial_id",
    "state",
    "architecture_id",
    "reward",
    "accuracy",
    "latency_ms",
    "train_time_s",
    "message",
)


def _csv(run: RunData) -> str:
    """Return the trials with one column for each decision."""
    names = list(dict.fromkeys(name for trial in run.trials for name in trial.answers))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_CSV_COLUMNS, *names])
    for trial in run.trials:
        values = [getattr(trial, column) for column in _CSV_COLUMNS]
        answers = [trial.answers.get(name, "") for name in names]
        writer.writerow([_spreadsheet_safe(value) for value in [*values, *answers]])
    return text.getvalue()


def _spreadsheet_safe(value: object) -> object:
    """Keep spreadsheets from running a text as a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value
