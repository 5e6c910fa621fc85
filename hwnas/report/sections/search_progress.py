"""How the search went: what it logged by epoch, and what its trials add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from hwnas.objectives import pareto
from hwnas.report import figures, formats
from hwnas.report.parts import Callout, Details, Figure, Fragment, Grid, Part, Text
from hwnas.report.quality import Quality
from hwnas.report.run_data import RunData, Trial
from hwnas.report.sections import SECTIONS, Section

_POINTS = 150
"""Figures that are costly to compute are computed at this many trials."""


@dataclass(frozen=True)
class _Known:
    """Logged numbers that share a figure.

    Attributes:
        title: Of the vertical axis.
        lines: Names in the event log and their labels; the first that a run has stands for it in a
            comparison.
        caption: What is seen.
        is_score: The values are scores, and the title and the caption speak of `{quality}`.
    """

    title: str
    lines: tuple[tuple[str, str], ...]
    caption: str
    is_score: bool = False


_KNOWN = (
    _Known(
        "Reward",
        (
            ("reward_mean", "mean"),
            ("reward", "trial"),
            ("reward_max", "largest"),
            ("strategy/baseline", "baseline"),
        ),
        "Reward of the children that the strategy proposed.",
    ),
    _Known(
        "Validation",
        (("accuracy_mean", "mean"), ("accuracy", "trial"), ("accuracy_max", "best")),
        "Validation {quality} of proposed children, as the search saw it.",
        is_score=True,
    ),
    _Known(
        "Entropy (nats a decision)",
        (("strategy/entropy", "entropy"),),
        "How undecided the strategy still is: it falls as the strategy settles.",
    ),
    _Known("Training loss", (("loss", "loss"),), "Loss while the shared weights were trained."),
    _Known(
        "Training",
        (("train_accuracy", "training"),),
        "Training {quality} of sampled children.",
        is_score=True,
    ),
)
_DRAWN_ELSEWHERE = {"infeasible_share"} | {name for known in _KNOWN for name, _ in known.lines}


@SECTIONS.register("search_progress")
class SearchProgress(Section):
    """Reward, score, entropy, hypervolume and the infeasible share as the search went on."""

    order = 30
    title = "Search progress"

    def applicable(self, run: RunData) -> str | None:
        """Need logged epochs or scored trials."""
        if run.series or run.complete_trials:
            return None
        return "The run has logged no epoch and scored no trial yet."

    def render(self, run: RunData) -> Fragment:
        """Return a grid of small figures."""
        return self.compare([run])

    def compare(self, runs: Sequence[RunData]) -> Fragment:
        """Return the same grid with one line a run."""
        drawn = [run for run in runs if self.applicable(run) is None]
        parts: list[Part] = [
            Callout("info", run.name, self.applicable(run) or "")
            for run in runs
            if run not in drawn
        ]
        if not drawn:
            return tuple(parts)
        grid = [
            figure
            for figure in (
                _trials_figure(drawn),
                *(_known_figure(drawn, known) for known in _KNOWN),
                _feasible_figure(drawn),
                _hypervolume_figure(drawn),
            )
            if figure is not None
        ]
        parts.insert(0, Text(" ".join(_summary(run) for run in drawn)))
        parts.insert(1, Grid(grid))
        others = [_other_figure(drawn, name) for name in _other_names(drawn)]
        if others:
            noun = "figure" if len(others) == 1 else "figures"
            parts.append(Details(f"{len(others)} more logged {noun}", (Grid(others),)))
        return tuple(parts)


def _summary(run: RunData) -> str:
    """Say what was tried and what the best feasible trial is."""
    scored = run.complete_trials
    if not scored:
        return f"{run.name}: no trial was scored."
    text = f"{run.name}: {len(scored)} trials were scored"
    if run.budget_ms is not None:
        text += f", {len(run.feasible_trials)} of them within the budget"
    best = max(run.feasible_trials, key=lambda trial: trial.accuracy or 0.0, default=None)
    if best is None:
        return text + "."
    at = "" if best.latency_ms is None else f" at {formats.milliseconds(best.latency_ms)}"
    return (
        f"{text}; the best of those is trial {best.trial_id} with {run.quality.name} "
        f"{run.quality.text(best.accuracy)}{at}."
    )


def _line(
    run: RunData, index: int, x: Sequence[float], y: Sequence[float | None]
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines" if len(x) > 1 else "markers",
        "name": run.name,
        "x": list(x),
        "y": list(y),
        "line": {"color": figures.COLOURS[index % len(figures.COLOURS)], "width": 2},
    }


def _small(
    traces: list[dict[str, Any]],
    x: str,
    y: str | dict[str, Any],
    caption: str,
    **y_settings: Any,
) -> Figure:
    axis = figures.axis(y, **y_settings) if isinstance(y, str) else y
    layout = figures.layout(
        figures.axis(x),
        axis,
        showlegend=len(traces) > 1,
        hovermode="x unified",
    )
    title = axis["title"]["text"]
    return Figure(traces, layout, caption, f"{title} over {x.lower()}. {caption}", height=280)


def _known_figure(runs: Sequence[RunData], known: _Known) -> Figure | None:
    traces: list[dict[str, Any]] = []
    for index, run in enumerate(runs):
        lines = [line for line in known.lines if line[0] in run.series]
        for number, (name, label) in enumerate(lines if len(runs) == 1 else lines[:1]):
            x, y = run.series[name]
            drawn = run.quality.all_drawn(y) if known.is_score else y
            trace = _line(run, index + number, x, drawn)
            traces.append(trace | ({"name": label} if len(runs) == 1 else {}))
    if not traces:
        return None
    if not known.is_score:
        return _small(traces, _unit(runs), known.title, known.caption)
    quality = runs[0].quality
    caption = known.caption.format(quality=quality.name)
    return _small(traces, _unit(runs), quality.axis(known.title), caption)


def _unit(runs: Sequence[RunData]) -> str:
    units = {run.step_unit for run in runs if run.series}
    return units.pop().capitalize() if len(units) == 1 else "Step"


def _other_names(runs: Sequence[RunData]) -> list[str]:
    names = dict.fromkeys(name for run in runs for name in run.series)
    return [name for name in names if name not in _DRAWN_ELSEWHERE]


def _other_figure(runs: Sequence[RunData], name: str) -> Figure:
    traces = [
        _line(run, index, *run.series[name]) for index, run in enumerate(runs) if name in run.series
    ]
    return _small(traces, _unit(runs), name, f"Logged as {name}.")


def _scored(run: RunData) -> list[Trial]:
    return [trial for trial in run.complete_trials if trial.accuracy is not None]


def _trials_figure(runs: Sequence[RunData]) -> Figure | None:
    """Draw the score of every trial, and the best feasible one so far."""
    traces: list[dict[str, Any]] = []
    for index, run in enumerate(runs):
        trials = _scored(run)
        if not trials:
            continue
        scores = [(trial.accuracy or 0.0) * trial.meets(run.budget_ms) for trial in trials]
        best = [score if score > 0 else None for score in accumulate(scores, max)]
        drawn = run.quality.all_drawn(best)
        line = _line(run, index, [trial.trial_id for trial in trials], drawn)
        if len(runs) == 1:
            traces.append(_dots(trials, run.quality))
            line["name"] = "best within the budget so far"
        line["line"]["shape"] = "hv"
        traces.append(line)
    if not traces:
        return None
    quality = runs[0].quality
    caption = f"Best {quality.name} within the budget so far, as each trial was scored."
    if any(trial.epoch is not None for run in runs for trial in run.complete_trials):
        caption += " A trial is scored on one validation batch with shared weights: a noisy guess."
    layout = figures.layout(
        figures.axis("Trial"),
        quality.axis("Validation"),
        showlegend=len(runs) > 1,
    )
    return Figure(traces, layout, caption, caption, height=280)


def _dots(trials: Sequence[Trial], quality: Quality) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "trials",
        "x": [trial.trial_id for trial in trials],
        "y": quality.all_drawn(trial.accuracy for trial in trials),
        "text": [trial.architecture_id for trial in trials],
        "hovertemplate": f"trial %{{x}}, %{{text}}<br>{quality.hover('y')}<extra></extra>",
        "marker": {"size": 4, "color": figures.MUTED, "opacity": 0.5},
    }


def _feasible_figure(runs: Sequence[RunData]) -> Figure | None:
    """Draw the share of trials over the budget, in windows of a twentieth of the run."""
    traces = []
    for index, run in enumerate(runs):
        trials = [trial for trial in run.complete_trials if trial.latency_ms is not None]
        if run.budget_ms is None or len(trials) < 2:
            continue
        size = max(2, len(trials) // 20)
        windows = [trials[start : start + size] for start in range(0, len(trials), size)]
        x = [window[-1].trial_id for window in windows]
        y = [
            100 * sum(not trial.meets(run.budget_ms) for trial in window) / len(window)
            for window in windows
        ]
        traces.append(_line(run, index, x, y))
    if not traces:
        return None
    caption = "Share of trials over the budget: a search that learns proposes fewer of them."
    return _small(traces, "Trial", "Over the budget (%)", caption, range=[0, 100])


def _hypervolume_figure(runs: Sequence[RunData]) -> Figure | None:
    """Draw the area that the trials so far dominate, from the slowest latency of all runs."""
    costs = [trial.latency_ms for run in runs for trial in _scored(run) if trial.latency_ms]
    if len(costs) < 2:
        return None
    worst = (0.0, max(costs))
    traces = []
    for index, run in enumerate(runs):
        trials = [trial for trial in _scored(run) if trial.latency_ms is not None]
        if len(trials) < 2:
            continue
        points = [(trial.accuracy or 0.0, trial.latency_ms or 0.0) for trial in trials]
        ends = sorted({*range(0, len(points), max(1, len(points) // _POINTS)), len(points) - 1})
        areas: list[float | None] = [pareto.hypervolume(points[: end + 1], worst) for end in ends]
        traces.append(_line(run, index, [trials[end].trial_id for end in ends], areas))
    caption = (
        f"Hypervolume so far: {_worth(runs[0].quality)} times latency saved against the slowest "
        "trial, "
        f"{formats.milliseconds(worst[1])}. More is better."
    )
    return _small(traces, "Trial", "Hypervolume (ms)", caption) if traces else None


def _worth(quality: Quality) -> str:
    """Name the score that grows as the quality gets better."""
    return f"1 / {quality.name}" if quality.is_less_better else quality.name
