"""Quality against latency: what was measured, what was only predicted, what the budget allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hwnas.objectives import pareto
from hwnas.report import figures, formats
from hwnas.report.parts import Callout, Cell, Column, Details, Figure, Fragment, Part, Table, Text
from hwnas.report.quality import Quality
from hwnas.report.results import Candidate
from hwnas.report.run_data import RunData
from hwnas.report.sections import SECTIONS, Section

_MOST_TRIALS = 2000


@dataclass(frozen=True)
class _Point:
    """A candidate in the plane: `x` is measured where possible, else predicted."""

    id: str
    accuracy: float
    predicted_ms: float | None
    measured_ms: float | None

    @property
    def x(self) -> float:
        value = self.measured_ms if self.measured_ms is not None else self.predicted_ms
        assert value is not None
        return value


@SECTIONS.register("pareto_front")
class ParetoFront(Section):
    """Quality against latency: measured, predicted, and what the budget allows."""

    order = 20
    title = "Pareto front"

    def applicable(self, run: RunData) -> str | None:
        """Need candidates with a score and a latency."""
        if _points(run) or _picks(run):
            return None
        return "No candidate has both a score and a latency yet."

    def render(self, run: RunData) -> Fragment:
        """Return the figure and the front as a table."""
        points, picks = _points(run), _picks(run)
        front = _front(points)
        traces = [
            *_background(run),
            *_cloud(points, front, figures.COLOURS[0], "", run.quality),
            *_pick_marks(picks, run.quality),
        ]
        measured = sum(point.measured_ms is not None for point in points)
        caption = (
            f"{len(points)} candidates, {measured} of them measured on the device (filled); "
            "hollow marks are predictions, a thin line joins the two. Faded points are dominated: "
            "another one is at least as fast and as good."
        )
        parts: list[Part] = []
        if not measured and not any(pick.measured_ms for _, pick in picks):
            parts.append(Callout("info", "Nothing was measured yet: all latencies are predicted."))
        if run.results and picks and any(each.is_inherited for each in run.results.front):
            caption += (
                " Candidates are scored with the supernet's shared weights, the named picks "
                "after their own training: the two are not on one scale."
            )
        alt = _alt(run, points, front)
        parts.append(_figure(traces, run.budget_ms, run.quality, caption, alt))
        table = _front_table(points, front, run.quality)
        parts.append(Details("The front as a table", (table,)))
        return tuple(parts)

    def compare(self, runs: Sequence[RunData]) -> Fragment:
        """Return the fronts of all runs in one figure."""
        traces: list[dict[str, Any]] = []
        reasons: list[Part] = []
        for index, run in enumerate(runs):
            points = _points(run)
            if not points:
                reasons.append(Callout("info", run.name, self.applicable(run) or "No candidates."))
                continue
            front = _front(points)
            colour = figures.COLOURS[index % len(figures.COLOURS)]
            traces += _cloud(points, front, colour, run.name, run.quality)
        if not traces:
            return tuple(reasons)
        budgets = {run.budget_ms for run in runs}
        budget = budgets.pop() if len(budgets) == 1 else None
        caption = "The fronts of all runs. Hollow marks are predictions, faded ones are dominated."
        if budgets:
            caption += " The runs have different budgets, so none is drawn."
            reasons.append(Text("; ".join(_budget_of(run) for run in runs), is_small=True))
        quality = runs[0].quality
        alt = f"Pareto fronts of {len(runs)} runs, {quality.name} against latency."
        return (_figure(traces, budget, quality, caption, alt), *reasons)


def _front(points: Sequence[_Point]) -> frozenset[int]:
    """Return the indices of the points that no other one beats."""
    indices = pareto.front([(point.accuracy, point.x) for point in points])
    return frozenset(int(index) for index in indices)


def _budget_of(run: RunData) -> str:
    return f"{run.name}: budget {formats.milliseconds(run.budget_ms)}"


def _points(run: RunData) -> list[_Point]:
    candidates = run.results.front if run.results else []
    return [point for each in candidates if (point := _point(each)) is not None]


def _point(candidate: Candidate) -> _Point | None:
    predicted = candidate.predicted.ms if candidate.predicted else None
    if candidate.accuracy is None or (predicted is None and candidate.measured_ms is None):
        return None
    return _Point(candidate.architecture.id, candidate.accuracy, predicted, candidate.measured_ms)


def _picks(run: RunData) -> list[tuple[str, _Point]]:
    """Return role and place of the headline networks, after their own training."""
    roles: dict[_Point, list[str]] = {}
    for row in run.results.headline if run.results else []:
        candidate = Candidate(
            architecture=row.architecture,
            accuracy=row.accuracy_valid if row.accuracy_valid is not None else row.accuracy_test,
            predicted=row.predicted,
            measured_ms=row.measured_ms,
        )
        point = _point(candidate)
        if point is not None:
            roles.setdefault(point, []).append(row.role)
    # One network may fill several roles; it is one mark.
    return [(", ".join(names), point) for point, names in roles.items()]


def _background(run: RunData) -> list[dict[str, Any]]:
    """Draw all trials of the search, faintly, where there are any."""
    trials = [
        trial
        for trial in run.complete_trials
        if trial.accuracy is not None and trial.latency_ms is not None
    ]
    trials = trials[:: max(1, len(trials) // _MOST_TRIALS)]
    if not trials:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "searched (predicted)",
            "x": [trial.latency_ms for trial in trials],
            "y": run.quality.all_drawn(trial.accuracy for trial in trials),
            "text": [trial.architecture_id for trial in trials],
            "hovertemplate": f"%{{text}}<br>%{{x:.4g}} ms, {run.quality.hover('y')}<extra></extra>",
            "marker": {"symbol": "circle-open", "size": 5, "color": figures.MUTED, "opacity": 0.4},
        }
    ]


def _cloud(
    points: Sequence[_Point], front: frozenset[int], colour: str, run: str, quality: Quality
) -> list[dict[str, Any]]:
    """Draw candidates of one run: front line, links, hollow predictions, filled measurements."""
    ordered = sorted((points[index] for index in front), key=lambda point: point.x)
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": run or "front",
            "legendgroup": run or "front",
            "x": [point.x for point in ordered],
            "y": quality.all_drawn(point.accuracy for point in ordered),
            "line": {"shape": "hv", "color": colour, "width": 2},
            "hoverinfo": "skip",
        },
        _links(points, colour, quality),
    ]
    for is_measured in (True, False):
        for is_front in (True, False):
            chosen = [
                point
                for index, point in enumerate(points)
                if (index in front) is is_front
                and (point.measured_ms if is_measured else point.predicted_ms) is not None
            ]
            if chosen:
                traces.append(_marks(chosen, is_measured, is_front, colour, run, quality))
    return traces


def _links(points: Sequence[_Point], colour: str, quality: Quality) -> dict[str, Any]:
    """Join prediction and measurement of the same candidate."""
    x: list[float | None] = []
    y: list[float | None] = []
    for point in points:
        if point.predicted_ms is not None and point.measured_ms is not None:
            x += [point.predicted_ms, point.measured_ms, None]
            y += [quality.drawn(point.accuracy)] * 2 + [None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"color": colour, "width": 1},
        "opacity": 0.35,
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _marks(
    points: Sequence[_Point],
    is_measured: bool,
    is_front: bool,
    colour: str,
    run: str,
    quality: Quality,
) -> dict[str, Any]:
    word = "measured" if is_measured else "predicted"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": word,
        "legendgroup": run or word,
        # The faded twin shares the legend entry of the front's marks; in a comparison all marks of
        # a run share that of its line.
        "showlegend": is_front and not run,
        "x": [point.measured_ms if is_measured else point.predicted_ms for point in points],
        "y": quality.all_drawn(point.accuracy for point in points),
        "text": [point.id for point in points],
        "hovertemplate": f"%{{text}}<br>%{{x:.4g}} ms {word}, {quality.hover('y')}<extra></extra>",
        "opacity": 1 if is_front else 0.3,
        "marker": {
            "symbol": "circle" if is_measured else "circle-open",
            "size": 10 if is_front else 8,
            "color": colour,
            "line": {"color": colour, "width": 1.5},
        },
    }


def _pick_marks(picks: Sequence[tuple[str, _Point]], quality: Quality) -> list[dict[str, Any]]:
    """Mark the headline networks with their roles; hollow where only predicted."""
    if not picks:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": "picks, after their own training",
            "x": [point.x for _, point in picks],
            "y": quality.all_drawn(point.accuracy for _, point in picks),
            "text": [role for role, _ in picks],
            "customdata": [point.id for _, point in picks],
            "textposition": "top center",
            "hovertemplate": "%{text} %{customdata}<br>%{x:.4g} ms, "
            f"{quality.hover('y')}<extra></extra>",
            "cliponaxis": False,
            "marker": {
                "symbol": [
                    "diamond" if point.measured_ms is not None else "diamond-open"
                    for _, point in picks
                ],
                "size": 13,
                "color": figures.COLOURS[1],
                "line": {"color": figures.PAPER, "width": 1},
            },
        }
    ]


def _figure(
    traces: list[dict[str, Any]],
    budget_ms: float | None,
    quality: Quality,
    caption: str,
    alt: str,
) -> Figure:
    settings: dict[str, Any] = {}
    if budget_ms is not None:
        text = f"budget {formats.milliseconds(budget_ms)}"
        settings["shapes"] = [figures.budget_line(budget_ms)]
        settings["annotations"] = [figures.budget_label(budget_ms, text)]
    layout = figures.layout(
        figures.axis("Latency (ms)", rangemode="tozero"),
        quality.axis("Validation"),
        **settings,
    )
    return Figure(traces, layout, caption, alt, height=460)


def _front_table(points: Sequence[_Point], front: frozenset[int], quality: Quality) -> Table:
    rows = [
        (
            Cell(point.id, is_code=True),
            Cell(quality.text(point.accuracy, 2), point.accuracy),
            Cell(formats.milliseconds(point.predicted_ms), point.predicted_ms),
            Cell(formats.milliseconds(point.measured_ms), point.measured_ms),
        )
        for point in sorted((points[index] for index in front), key=lambda point: point.x)
    ]
    columns = (
        Column("Architecture"),
        Column(f"Validation {quality.name}", True),
        Column("Predicted", True),
        Column("Measured", True),
    )
    return Table(columns, rows, "Candidates that no other one dominates.", is_sortable=True)


def _alt(run: RunData, points: Sequence[_Point], front: frozenset[int]) -> str:
    if not points:
        return f"The picked networks, {run.quality.name} against latency."
    span = [points[index] for index in front]
    fastest, best = min(span, key=lambda p: p.x), max(span, key=lambda p: p.accuracy)
    text = (
        f"{run.quality.name.capitalize()} against latency: the front of {len(front)} candidates "
        f"runs from {run.quality.text(fastest.accuracy)} at {formats.milliseconds(fastest.x)} to "
        f"{run.quality.text(best.accuracy)} at {formats.milliseconds(best.x)}"
    )
    return text + (f"; the {_budget_of(run)}." if run.budget_ms is not None else ".")
