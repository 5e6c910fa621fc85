"""Can the supernet's ranking be trusted? Inherited against retrained scores."""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.report import figures
from hwnas.report.parts import Callout, Cell, Column, Figure, Fragment, Part, Table
from hwnas.report.quality import Quality
from hwnas.report.results import RankingCheck
from hwnas.report.run_data import RunData
from hwnas.report.sections import SECTIONS, Section
from hwnas.report.statistics import describe_tau, kendall_tau

_FEWEST = 3
_PLENTY = 8


@SECTIONS.register("ranking_trust")
class RankingTrust(Section):
    """Can the supernet's ranking be trusted? Inherited against retrained scores."""

    order = 70
    title = "Can the supernet's ranking be trusted?"

    def applicable(self, run: RunData) -> str | None:
        """Need three networks that were scored both ways."""
        if run.results is None:
            return "The run has no results yet, so no network was retrained."
        checks = run.results.ranking_checks
        if len(checks) < _FEWEST:
            noun = "network was" if len(checks) == 1 else "networks were"
            return (
                f"{len(checks) or 'No'} {noun} scored both with shared weights and after their own "
                f"training; a ranking needs {_FEWEST} or more. Train more picks to see it."
            )
        if kendall_tau(_inherited(checks), _retrained(checks)) is None:
            return "All networks tie in one of the two scores: there is no ranking to compare."
        return None

    def render(self, run: RunData) -> Fragment:
        """Return the verdict, the scatter and the table."""
        assert run.results is not None
        checks = run.results.ranking_checks
        tau = kendall_tau(_inherited(checks), _retrained(checks))
        assert tau is not None
        parts: list[Part] = [
            _verdict(tau, len(checks)),
            _scatter(checks, run.quality),
            _table(checks, run.quality),
        ]
        return tuple(parts)


def _inherited(checks: Sequence[RankingCheck]) -> list[float]:
    return [check.inherited_accuracy for check in checks]


def _retrained(checks: Sequence[RankingCheck]) -> list[float]:
    return [check.retrained_accuracy for check in checks]


def _verdict(tau: float, count: int) -> Callout:
    title = f"Kendall τ = {tau:.2f}: shared weights rank these networks {describe_tau(tau)}."
    text = f"{count} networks were trained on their own after the search."
    if count < _PLENTY:
        text += " That is few: one more network could change the figure a lot."
    if tau >= 0.4:
        return Callout("info", title, text)
    text += " The search may have preferred the wrong networks; retrain more of its candidates."
    return Callout("warning", title, text)


def _scatter(checks: Sequence[RankingCheck], quality: Quality) -> Figure:
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": quality.all_drawn(_inherited(checks)),
        "y": quality.all_drawn(_retrained(checks)),
        "text": [check.architecture_id for check in checks],
        "hovertemplate": f"%{{text}}<br>inherited {quality.hover('x')}<br>"
        f"retrained {quality.hover('y')}<extra></extra>",
        "marker": {"size": 10, "color": figures.COLOURS[0]},
    }
    layout = figures.layout(
        quality.axis("With shared weights:"),
        quality.axis("After its own training:"),
        showlegend=False,
    )
    caption = (
        f"Validation {quality.name} of the same networks; a rising line would be a perfect ranking."
    )
    alt = f"{len(checks)} networks, {quality.name} inherited against retrained."
    return Figure([trace], layout, caption, alt)


def _table(checks: Sequence[RankingCheck], quality: Quality) -> Table:
    rows = [
        (
            Cell(check.architecture_id, is_code=True),
            Cell(quality.text(check.inherited_accuracy, 2), check.inherited_accuracy),
            Cell(quality.text(check.retrained_accuracy, 2), check.retrained_accuracy),
        )
        for check in sorted(checks, key=lambda each: -each.retrained_accuracy)
    ]
    columns = (Column("Architecture"), Column("Inherited", True), Column("Retrained", True))
    return Table(columns, rows, "Best retrained first.", is_sortable=True)
