"""Where the milliseconds go: the chosen network, kernel by kernel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from hwnas.report import figures, formats
from hwnas.report.parts import Callout, Cell, Column, Details, Figure, Fragment, Part, Table, Text
from hwnas.report.results import KernelTime
from hwnas.report.run_data import RunData
from hwnas.report.sections import SECTIONS, Section

_MOST_BARS = 60
_MOST_RATIO = 2.0
"""Calibration changes a prediction by less than this; another network by more."""


@SECTIONS.register("kernel_times")
class KernelTimes(Section):
    """Where the milliseconds go: the chosen network, kernel by kernel."""

    order = 50
    title = "Where the milliseconds go"

    def applicable(self, run: RunData) -> str | None:
        """Need the kernels of the chosen network."""
        if run.results is None:
            return "The run has no results yet, so no network was chosen."
        if not run.results.kernels:
            return "The results do not list the kernels of the chosen network."
        return None

    def render(self, run: RunData) -> Fragment:
        """Return totals by op, one bar a kernel, and the table."""
        assert run.results is not None
        kernels = run.results.kernels
        total = sum(kernel.ms for kernel in kernels)
        parts: list[Part] = [Text(_summary(kernels, total, run))]
        parts.extend(_doubt(total, run))
        unknown = [kernel for kernel in kernels if not kernel.is_measured]
        if unknown:
            share = formats.percent(sum(each.ms for each in unknown) / total if total else 0.0)
            title = f"{len(unknown)} of {len(kernels)} kernels were not measured themselves."
            text = f"Their times, {share} of the sum, are estimates from other kernels."
            parts.append(Callout("warning", title, text))
        parts.append(_by_op(kernels, total))
        parts.append(_bars(kernels))
        parts.append(Details(f"All {len(kernels)} kernels", (_table(kernels, total),)))
        return tuple(parts)


def _summary(kernels: Sequence[KernelTime], total: float, run: RunData) -> str:
    slowest = max(kernels, key=lambda kernel: kernel.ms)
    text = (
        f"{len(kernels)} kernels after the runtime's fusion add up to "
        f"{formats.milliseconds(total)}; the slowest one, {slowest.op} {slowest.name}, takes "
        f"{formats.percent(slowest.ms / total if total else 0.0)}."
    )
    row = run.results.chosen_row if run.results else None
    if row is not None and row.measured_ms is not None:
        text += f" The whole network was measured at {formats.milliseconds(row.measured_ms)}."
    return text


def _doubt(total: float, run: RunData) -> list[Part]:
    """Warn where the kernels cannot be those of the chosen network."""
    row = run.results.chosen_row if run.results else None
    if row is None or row.predicted is None or not total:
        return []
    if 1 / _MOST_RATIO < row.predicted.ms / total < _MOST_RATIO:
        return []
    text = (
        f"They add up to {formats.milliseconds(total)}, but the chosen network is predicted at "
        f"{formats.milliseconds(row.predicted.ms)}: they may be those of another network."
    )
    return [Callout("warning", "These kernels do not fit the chosen network.", text)]


def _by_op(kernels: Sequence[KernelTime], total: float) -> Table:
    groups: dict[str, list[float]] = defaultdict(list)
    for kernel in kernels:
        groups[kernel.op].append(kernel.ms)
    rows = []
    for op, times in sorted(groups.items(), key=lambda item: -sum(item[1])):
        part = sum(times) / total if total else 0.0
        rows.append(
            (
                Cell(op),
                Cell(str(len(times)), len(times)),
                Cell(formats.milliseconds(sum(times)), sum(times)),
                Cell(formats.percent(part), part, bar=part),
            )
        )
    columns = (Column("Op"), Column("Calls", True), Column("Time", True), Column("Share", True))
    return Table(columns, rows, "Time by kind of kernel.", is_sortable=True)


def _bars(kernels: Sequence[KernelTime]) -> Figure:
    shown = sorted(kernels, key=lambda kernel: -kernel.ms)[:_MOST_BARS]
    places = {id(kernel): index for index, kernel in enumerate(shown)}
    ops = list(dict.fromkeys(kernel.op for kernel in shown))
    traces: list[dict[str, Any]] = []
    for number, op in enumerate(ops):
        mine = [kernel for kernel in shown if kernel.op == op]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": op,
                "y": [places[id(kernel)] for kernel in mine],
                "x": [kernel.ms for kernel in mine],
                "text": [kernel.signature for kernel in mine],
                "textposition": "none",
                "hovertemplate": "%{text}<br>%{x:.4g} ms<extra></extra>",
                "marker": {
                    "color": figures.COLOURS[number % len(figures.COLOURS)],
                    "opacity": [1 if kernel.is_measured else 0.45 for kernel in mine],
                },
            }
        )
    labels = [_shortened(kernel.name or kernel.op) for kernel in shown]
    vertical = figures.axis(
        "", autorange="reversed", tickvals=list(range(len(shown))), ticktext=labels
    )
    layout = figures.layout(figures.axis("Time of one call (ms)"), vertical, bargap=0.25)
    caption = "One bar a kernel, slowest first; faint bars were not measured themselves."
    if len(kernels) > _MOST_BARS:
        caption += f" The slowest {_MOST_BARS} of {len(kernels)} are shown."
    alt = "Slowest kernels: " + ", ".join(
        f"{kernel.name or kernel.op} {formats.milliseconds(kernel.ms)}" for kernel in shown[:5]
    )
    return Figure(traces, layout, caption, alt, height=120 + 20 * len(shown))


def _shortened(name: str) -> str:
    return name if len(name) <= 28 else name[:13] + "…" + name[-14:]


def _table(kernels: Sequence[KernelTime], total: float) -> Table:
    rows = []
    for index, kernel in enumerate(kernels):
        part = kernel.ms / total if total else 0.0
        rows.append(
            (
                Cell(str(index), index),
                Cell(kernel.op),
                Cell(kernel.name, is_code=True),
                Cell(kernel.signature, is_code=True),
                Cell(formats.milliseconds(kernel.ms), kernel.ms),
                Cell(formats.percent(part), part, bar=part),
                Cell("measured" if kernel.is_measured else "estimated"),
            )
        )
    columns = (
        Column("#", True),
        Column("Op"),
        Column("Layer"),
        Column("Signature"),
        Column("Time", True),
        Column("Share", True),
        Column("Source"),
    )
    return Table(columns, rows, "The kernels in the order of the graph.", is_sortable=True)
