"""Can the predictor be trusted? Predicted against measured latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwnas.report import figures, formats
from hwnas.report.parts import Callout, Cell, Column, Details, Facts, Figure, Fragment, Part, Table
from hwnas.report.results import PredictionCheck
from hwnas.report.run_data import RunData
from hwnas.report.sections import SECTIONS, Section
from hwnas.report.statistics import describe_tau, kendall_tau, percentile


@SECTIONS.register("predictor_trust")
class PredictorTrust(Section):
    """Can the predictor be trusted? Predicted against measured latency."""

    order = 60
    title = "Can the predictor be trusted?"

    def applicable(self, run: RunData) -> str | None:
        """Need architectures that were predicted and measured."""
        if run.results is None:
            return "The run has no results yet, so no prediction was checked."
        if not run.results.prediction_checks:
            return "No architecture was both predicted and measured: predictions are unchecked."
        return None

    def render(self, run: RunData) -> Fragment:
        """Return warnings, figures of merit, the scatter and the table."""
        assert run.results is not None
        checks = run.results.prediction_checks
        fresh = [check for check in checks if not check.was_profiled]
        judged = fresh or checks
        parts: list[Part] = list(_budget_warning(run, judged))
        if not fresh:
            text = "Their kernels took part in making the table, so errors look smaller than usual."
            parts.append(Callout("info", "No architecture here is new to the table.", text))
        parts.append(Facts(_merits(judged)))
        parts.append(_scatter(checks, run.budget_ms))
        parts.append(Details("All checks", (_table(checks),)))
        return tuple(parts)


def relative_error(check: PredictionCheck) -> float:
    """Return (predicted − measured) / measured."""
    return (check.predicted.ms - check.measured_ms) / check.measured_ms


def _budget_warning(run: RunData, checks: Sequence[PredictionCheck]) -> list[Part]:
    """Warn where the predictor cannot tell on which side of the budget the pick lies."""
    row = run.results.chosen_row if run.results else None
    if row is None or row.predicted is None or run.budget_ms is None:
        return []
    errors = [abs(relative_error(check)) for check in checks]
    width = percentile(errors, 90) * row.predicted.ms
    low = min(row.predicted.ms - width, _or(row.predicted.low_ms, row.predicted.ms))
    high = max(row.predicted.ms + width, _or(row.predicted.high_ms, row.predicted.ms))
    if not low <= run.budget_ms <= high:
        return []
    text = (
        f"Predicted {formats.milliseconds(row.predicted.ms)}, which can mean "
        f"{formats.significant(low)} to {formats.significant(high)} ms; the budget is "
        f"{formats.milliseconds(run.budget_ms)}. "
    )
    if row.measured_ms is None:
        text += "Measure the network before relying on it: hwnas bench MODEL."
    else:
        text += f"The measurement decides: {formats.milliseconds(row.measured_ms)}."
    return [Callout("warning", "The budget lies inside the error band of the prediction.", text)]


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _merits(checks: Sequence[PredictionCheck]) -> list[tuple[str, str]]:
    errors = [relative_error(check) for check in checks]
    sizes = [abs(error) for error in errors]
    items = [("Architectures checked", str(len(checks)))]
    tau = kendall_tau([c.predicted.ms for c in checks], [c.measured_ms for c in checks])
    if tau is not None and len(checks) >= 3:
        items.append(("Kendall τ", f"{tau:.2f}: ranked {describe_tau(tau)}"))
    items.append(("Mean error (bias)", f"{100 * sum(errors) / len(errors):+.1f}\u202f%"))
    for percent in (50, 90, 100):
        word = {50: "Median", 90: "90th percentile", 100: "Largest"}[percent]
        items.append((f"{word} of |error|", formats.percent(percentile(sizes, percent))))
    within = sum(size <= 0.1 for size in sizes)
    items.append(("Within ±10 %", f"{within} of {len(checks)}"))
    inside = _inside(checks)
    if inside:
        items.append(inside)
    return items


def _inside(checks: Sequence[PredictionCheck]) -> tuple[str, str] | None:
    """Count how many measurements fell into the predicted interval."""
    hits = []
    for check in checks:
        low, high = check.predicted.low_ms, check.predicted.high_ms
        if low is not None and high is not None:
            hits.append(low <= check.measured_ms <= high)
    if not hits:
        return None
    wanted = next((c.predicted.coverage for c in checks if c.predicted.coverage), None)
    promise = "" if wanted is None else f", promised {formats.percent(wanted, 0)}"
    return ("Inside the interval", f"{sum(hits)} of {len(hits)}{promise}")


def _scatter(checks: Sequence[PredictionCheck], budget_ms: float | None) -> Figure:
    values = [check.measured_ms for check in checks] + [check.predicted.ms for check in checks]
    ends = [0.95 * min(values), 1.05 * max(values)]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "perfect",
            "x": ends,
            "y": ends,
            "line": {"color": figures.MUTED, "width": 1.5},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "±10 %",
            "x": [*ends, None, *ends],
            "y": [*(1.1 * end for end in ends), None, *(0.9 * end for end in ends)],
            "line": {"color": figures.MUTED, "width": 1, "dash": "dot"},
            "hoverinfo": "skip",
        },
    ]
    for is_new, name, symbol in ((True, "new to the table", "circle"), (False, "profiled", "x")):
        mine = [check for check in checks if check.was_profiled is not is_new]
        if not mine:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [check.measured_ms for check in mine],
                "y": [check.predicted.ms for check in mine],
                "text": [check.architecture_id for check in mine],
                "hovertemplate": "%{text}<br>measured %{x:.4g} ms<br>predicted %{y:.4g} ms"
                "<extra></extra>",
                "error_y": _bars(mine),
                "marker": {
                    "symbol": symbol,
                    "size": 8,
                    "color": figures.COLOURS[0 if is_new else 1],
                },
            }
        )
    settings: dict[str, Any] = {}
    if budget_ms is not None and ends[0] <= budget_ms <= ends[1]:
        text = f"budget {formats.milliseconds(budget_ms)}"
        settings = {
            "shapes": [figures.budget_line(budget_ms, axis_name=name) for name in ("x", "y")],
            "annotations": [figures.budget_label(budget_ms, text)],
        }
    layout = figures.layout(
        figures.axis("Measured (ms)"), figures.axis("Predicted (ms)"), **settings
    )
    caption = "Predicted against measured latency; bars are the predicted intervals."
    worst = max(abs(relative_error(check)) for check in checks)
    alt = f"{len(checks)} architectures near the diagonal, the worst {formats.percent(worst)} off."
    return Figure(traces, layout, caption, alt, height=440)


def _bars(checks: Sequence[PredictionCheck]) -> dict[str, object]:
    def reach(check: PredictionCheck, is_up: bool) -> float:
        bound = check.predicted.high_ms if is_up else check.predicted.low_ms
        return 0.0 if bound is None else abs(bound - check.predicted.ms)

    return {
        "type": "data",
        "symmetric": False,
        "array": [reach(check, True) for check in checks],
        "arrayminus": [reach(check, False) for check in checks],
        "thickness": 1,
        "width": 2,
    }


def _table(checks: Sequence[PredictionCheck]) -> Table:
    rows = []
    for check in sorted(checks, key=lambda each: -abs(relative_error(each))):
        error = relative_error(check)
        rows.append(
            (
                Cell(check.architecture_id, is_code=True),
                Cell(formats.prediction(check.predicted), check.predicted.ms),
                Cell(formats.milliseconds(check.measured_ms), check.measured_ms),
                Cell(
                    f"{100 * error:+.1f}\u202f%",
                    error,
                    level="warning" if abs(error) > 0.1 else None,
                ),
                Cell("profiled" if check.was_profiled else "new"),
            )
        )
    columns = (
        Column("Architecture"),
        Column("Predicted", True),
        Column("Measured", True),
        Column("Error", True),
        Column("To the table"),
    )
    return Table(columns, rows, "Predictions and measurements, worst first.", is_sortable=True)
