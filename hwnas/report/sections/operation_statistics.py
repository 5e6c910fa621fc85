"""Which answers the best architectures share, against all that were tried."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from hwnas.registry import PluginConfig
from hwnas.report import figures, formats
from hwnas.report.parts import Callout, Cell, Column, Details, Figure, Fragment, Part, Table, Text
from hwnas.report.run_data import RunData, Trial
from hwnas.report.sections import SECTIONS, Section

_MOST_ROWS = 24
_PLENTY = 10


@dataclass(frozen=True)
class AnswerShare:
    """How often one answer was given, among the best trials and among all, in ``[0, 1]``."""

    decision: str
    answer: str
    best: float
    all: float

    @property
    def difference(self) -> float:
        """How much more often the best trials gave this answer."""
        return self.best - self.all


@SECTIONS.register("operation_statistics")
class OperationStatistics(Section):
    """Which answers the best architectures share, against all that were tried."""

    order = 80
    title = "What the best architectures share"

    class Config(PluginConfig):
        """Settings of the section."""

        best_share: float = Field(0.1, gt=0, lt=1, description="part of the trials that is best")
        fewest: int = Field(20, ge=2, description="trials below which nothing is drawn")

    def applicable(self, run: RunData) -> str | None:
        """Need enough scored trials."""
        scored = _scored(run)
        fewest = self._settings.fewest
        if len(scored) < fewest:
            return f"{len(scored)} trials have a reward; at least {fewest} are needed."
        if not any(trial.answers for trial in scored):
            return "The trials do not say what was picked."
        return None

    def render(self, run: RunData) -> Fragment:
        """Return the figure by kind of decision, and tables."""
        ranked = sorted(_scored(run), key=lambda trial: -(trial.reward or 0.0))
        best = ranked[: max(1, math.ceil(self._settings.best_share * len(ranked)))]
        parts: list[Part] = [
            Text(
                f"The {len(best)} trials with the highest reward against all {len(ranked)}. "
                "Decisions of one kind, such as the op of every node, are taken together."
            )
        ]
        if len(best) < _PLENTY:
            parts.append(Callout("info", f"{len(best)} trials are few: read this as a hint only."))
        kinds = shares(best, ranked, kind_of)
        parts.append(_dumbbells(kinds))
        parts.append(Details("By kind of decision", (_table(kinds),)))
        parts.append(Details("By decision", (_table(shares(best, ranked, str)),)))
        return tuple(parts)

    @property
    def _settings(self) -> OperationStatistics.Config:
        assert isinstance(self.config, OperationStatistics.Config)
        return self.config


def _scored(run: RunData) -> list[Trial]:
    return [trial for trial in run.complete_trials if trial.reward is not None]


def kind_of(decision: str) -> str:
    """Return the kind of a decision: its name with the numbers left out."""
    return re.sub(r"\d+", "#", decision)


def shares(
    best: Sequence[Trial], everything: Sequence[Trial], group: Callable[[str], str]
) -> list[AnswerShare]:
    """Return how often each answer was given, largest difference first.

    Args:
        best: Some of the trials.
        everything: All trials.
        group: Maps the name of a decision to the name of its group.
    """
    counts_best, totals_best = _count(best, group)
    counts_all, totals_all = _count(everything, group)
    found = [
        AnswerShare(
            decision,
            answer,
            counts_best[decision, answer] / max(1, totals_best[decision]),
            number / totals_all[decision],
        )
        for (decision, answer), number in counts_all.items()
    ]
    return sorted(found, key=lambda share: (-abs(share.difference), share.decision, share.answer))


def _count(
    trials: Sequence[Trial], group: Callable[[str], str]
) -> tuple[Mapping[tuple[str, str], int], Mapping[str, int]]:
    counts: Counter[tuple[str, str]] = Counter()
    totals: Counter[str] = Counter()
    for trial in trials:
        for name, answer in trial.answers.items():
            totals[group(name)] += 1
            for text in _texts(answer):
                counts[group(name), text] += 1
    return counts, totals


def _texts(answer: object) -> list[str]:
    """Return the answers that one pick counts for: a subset counts for each of its members."""
    if isinstance(answer, (list, tuple)):
        return [f"includes {member}" for member in answer] or ["empty"]
    return [str(answer)]


def _dumbbells(found: Sequence[AnswerShare]) -> Figure:
    shown = found[:_MOST_ROWS]
    labels = [f"{share.decision} = {share.answer}" for share in shown]
    rows = list(range(len(shown)))
    lines: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "x": [x for share in shown for x in (100 * share.all, 100 * share.best, None)],
        "y": [y for row in rows for y in (row, row, None)],
        "line": {"color": figures.MUTED, "width": 2},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    traces = [lines]
    for name, symbol, values in (
        ("all trials", "circle-open", [share.all for share in shown]),
        ("best trials", "circle", [share.best for share in shown]),
    ):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [100 * value for value in values],
                "y": rows,
                "text": labels,
                "hovertemplate": "%{text}<br>%{x:.1f} % of " + name + "<extra></extra>",
                "cliponaxis": False,
                "marker": {"symbol": symbol, "size": 10, "color": figures.COLOURS[0]},
            }
        )
    short = [label if len(label) <= 34 else "…" + label[-33:] for label in labels]
    layout = figures.layout(
        figures.axis("Share of the answers (%)", rangemode="tozero"),
        figures.axis("", autorange="reversed", tickvals=rows, ticktext=short, showgrid=False),
    )
    caption = "How often an answer was given: hollow by all, filled by the best trials."
    if len(found) > len(shown):
        caption += f" The {len(shown)} largest differences of {len(found)} are shown."
    alt = "Largest differences: " + "; ".join(
        f"{label} {100 * share.difference:+.0f} points"
        for label, share in list(zip(labels, shown, strict=True))[:5]
    )
    return Figure(traces, layout, caption, alt, height=120 + 24 * len(shown))


def _table(found: Sequence[AnswerShare]) -> Table:
    rows = [
        (
            Cell(share.decision, is_code=True),
            Cell(share.answer, is_code=True),
            Cell(formats.percent(share.best), share.best, bar=min(1.0, share.best)),
            Cell(formats.percent(share.all), share.all, bar=min(1.0, share.all)),
            Cell(f"{100 * share.difference:+.1f}", share.difference),
        )
        for share in found
    ]
    columns = (
        Column("Decision"),
        Column("Answer"),
        Column("Best", True),
        Column("All", True),
        Column("Difference (points)", True),
    )
    return Table(columns, rows, "Share of the answers to each decision.", is_sortable=True)
