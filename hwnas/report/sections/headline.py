"""What was found, in one sentence and one table, and how to find it again."""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.report import formats
from hwnas.report.parts import (
    Callout,
    Cell,
    Column,
    Command,
    Details,
    Facts,
    Fragment,
    Part,
    Table,
    Text,
)
from hwnas.report.quality import Quality
from hwnas.report.results import HeadlineRow, RunResults
from hwnas.report.run_data import RunData
from hwnas.report.sections import SECTIONS, Section

_ROLES = ("baseline", "best", "knee", "fastest")

_COLUMNS = (
    Column("Pick"),
    Column("Test", True, "accuracy, or perplexity of a text, on the untouched test split"),
    Column("Validation", True, "after its own training; below it, with shared weights"),
    Column("Predicted", True, "from the latency table, with its interval"),
    Column("Measured", True, "on the device; the budget is on this. Below: by the wall clock"),
    Column("Parameters", True),
    Column("MACs", True, "multiply-accumulates of one inference"),
    Column("Parity", True, "largest absolute difference of a logit, ONNX against PyTorch"),
    Column("File"),
)


@SECTIONS.register("headline")
class Headline(Section):
    """What was found, in one sentence and one table, and how to find it again."""

    order = 10
    title = "Result"

    def applicable(self, run: RunData) -> str | None:
        """Need a headline row."""
        if run.results is None:
            return "The run has no results.json yet: the search has not come to its end."
        if not run.results.headline:
            return "No network was picked yet: the results have no headline row."
        return None

    def render(self, run: RunData) -> Fragment:
        """Return sentence, verdict, table and command."""
        assert run.results is not None
        results = run.results
        rows = sorted(results.headline, key=_rank)
        parts: list[Part] = [Text(sentence(run), is_lead=True), *_verdict(results)]
        parts.append(_table(rows, results.chosen, "The networks that were picked and compared."))
        parts.extend(Callout("info", note) for note in results.notes)
        if results.command:
            parts.append(Command(results.command, "Repeat this run"))
        parts.append(Facts(_provenance(run, results)))
        parts.append(Details("The chosen networks, pick by pick", tuple(_answers(rows))))
        return tuple(parts)

    def compare(self, runs: Sequence[RunData]) -> Fragment:
        """Return the rows of all runs in one table, and each run's command."""
        rows: list[tuple[Cell, ...]] = []
        marked: list[int] = []
        parts: list[Part] = []
        for run in runs:
            reason = self.applicable(run)
            if reason is not None or run.results is None:
                parts.append(Callout("info", run.name, reason or ""))
                continue
            for row in sorted(run.results.headline, key=_rank):
                if row.role == run.results.chosen:
                    marked.append(len(rows))
                rows.append((Cell(run.name), *_cells(row)))
            if run.results.command:
                parts.append(Command(run.results.command, run.name))
        if not rows:
            return tuple(parts)
        table = Table(
            (Column("Run"), *_COLUMNS),
            rows,
            f"The networks that {len(runs)} runs picked; chosen ones are marked.",
            is_sortable=True,
            marked=frozenset(marked),
        )
        return (table, *parts)


def sentence(run: RunData) -> str:
    """Say in one sentence what the chosen network is worth."""
    results = run.results
    if results is None or not results.headline:
        return f"{run.name} has no result yet."
    row = results.chosen_row or results.headline[0]
    accuracy = row.accuracy_test if row.accuracy_test is not None else row.accuracy_valid
    split = "test" if row.accuracy_test is not None else "validation"
    text = f"The network of {run.name}"
    if accuracy is not None:
        text += f" reaches {_worth(row, accuracy)} on the {split} split"
    if row.measured_ms is not None:
        text += f" at {formats.milliseconds(row.measured_ms)}, measured on this device"
    elif row.predicted is not None:
        text += f" at a predicted {formats.milliseconds(row.predicted.ms)}, not yet measured"
    return text + _against_baseline(results, row) + "."


def _against_baseline(results: RunResults, row: HeadlineRow) -> str:
    """Compare the chosen network with the baseline, where both were measured alike."""
    base = next((each for each in results.headline if each.role == "baseline"), None)
    if base is None or base is row:
        return ""
    words = []
    if row.measured_ms and base.measured_ms:
        ratio = base.measured_ms / row.measured_ms
        word = "faster" if ratio >= 1 else "slower"
        words.append(f"{max(ratio, 1 / ratio):.2g} times {word}")
    for ours, theirs in (
        (row.accuracy_test, base.accuracy_test),
        (row.accuracy_valid, base.accuracy_valid),
    ):
        if ours is not None and theirs is not None:
            words.append(_better(Quality(row.task), ours, theirs))
            break
    return f": {' and '.join(words)} than the baseline" if words else ""


def _better(quality: Quality, ours: float, theirs: float) -> str:
    """Return how much better a score is than another, in front of ``than …``."""
    if quality.is_less_better:
        change = theirs / ours - 1  # scores are the inverse of the quality
        return f"{abs(change):.1%} {'lower' if change <= 0 else 'higher'} in {quality.name}"
    points = 100 * (ours - theirs)
    return f"{abs(points):.1f} points {'more' if points >= 0 else 'less'} accurate"


def _verdict(results: RunResults) -> list[Part]:
    """Say plainly whether the chosen network meets the budget."""
    row, budget = results.chosen_row, results.budget_ms
    if row is None or budget is None:
        return []
    wanted = formats.milliseconds(budget)
    if row.measured_ms is None:
        return [Callout("info", f"The budget of {wanted} was not checked by a measurement.")]
    over = row.measured_ms / budget - 1
    if row.measured_spread is not None and abs(over) < row.measured_spread:
        title = f"Whether the chosen network meets the budget of {wanted} is too close to call."
        text = (
            f"Measured {formats.milliseconds(row.measured_ms)}, {100 * abs(over):.1f} % "
            f"{'over' if over > 0 else 'below'} it, with a spread of "
            f"{100 * row.measured_spread:.0f} %. Measure again on an idle machine: hwnas bench."
        )
        return [Callout("warning", title, text)]
    if over > 0:
        text = f"Measured {formats.milliseconds(row.measured_ms)}, {100 * over:.1f} % over it."
        return [Callout("warning", f"The chosen network misses the budget of {wanted}.", text)]
    text = f"Measured {formats.milliseconds(row.measured_ms)}, {-100 * over:.1f} % below it."
    return [Callout("good", f"The chosen network meets the budget of {wanted}.", text)]


def _rank(row: HeadlineRow) -> tuple[int, str]:
    return (_ROLES.index(row.role) if row.role in _ROLES else len(_ROLES), row.role)


def _table(rows: Sequence[HeadlineRow], chosen: str | None, caption: str) -> Table:
    marked = frozenset(index for index, row in enumerate(rows) if row.role == chosen)
    return Table(_COLUMNS, [_cells(row) for row in rows], caption, marked=marked)


def _score(row: HeadlineRow, score: float | None) -> str:
    return Quality(row.task).text(score)


def _worth(row: HeadlineRow, score: float) -> str:
    quality = Quality(row.task).name
    return f"{'an' if quality[0] in 'aeiou' else 'a'} {quality} of {_score(row, score)}"


def _cells(row: HeadlineRow) -> tuple[Cell, ...]:
    inherited, parity = row.inherited_accuracy, row.parity_max_abs_difference
    return (
        Cell(row.role, note=row.note),
        Cell(_score(row, row.accuracy_test), row.accuracy_test),
        Cell(
            _score(row, row.accuracy_valid),
            row.accuracy_valid,
            note="" if inherited is None else f"inherited {_score(row, inherited)}",
        ),
        _predicted(row),
        _measured(row),
        Cell(formats.count(row.params), row.params),
        Cell(formats.count(row.macs), row.macs),
        Cell(formats.MISSING if parity is None else f"{parity:.0e}", parity),
        Cell(row.onnx or formats.MISSING, is_code=row.onnx is not None),
    )


def _predicted(row: HeadlineRow) -> Cell:
    if row.predicted is None:
        return Cell(formats.MISSING)
    ms = row.predicted.ms
    return Cell(formats.milliseconds(ms), ms, note=formats.interval(row.predicted))


def _measured(row: HeadlineRow) -> Cell:
    text = formats.milliseconds(row.measured_ms)
    if row.measured_spread is not None:
        text += f" ±{100 * row.measured_spread:.0f}\u202f%"
    wall = row.measured_wall_ms
    note = "" if wall is None else f"wall {formats.milliseconds(wall)}"
    return Cell(text, row.measured_ms, note=note)


def _provenance(run: RunData, results: RunResults) -> list[tuple[str, str]]:
    """List what has to be the same for the same result."""
    git = results.git
    state = "" if git is None else git.commit[:12] + (", with changes" if git.is_dirty else "")
    stages: dict[str, float] = {}
    for each in results.timings:
        # Stages that are done once a network, such as train/3f2a…, are one line to the reader.
        name = each.stage.split("/")[0]
        stages[name] = stages.get(name, 0.0) + each.seconds
    timings = "; ".join(f"{name} {formats.seconds(s)}" for name, s in stages.items())
    items = [
        ("Space", run.plugin("space")),
        ("Data", run.plugin("data")),
        ("Strategy", run.plugin("strategy")),
        ("Seed", None if results.seed is None else str(results.seed)),
        ("Git", state),
        ("hwnas", results.hwnas_version),
        ("Written", formats.date(results.created)),
        ("Time taken", timings),
    ]
    return [(term, value) for term, value in items if value]


def _answers(rows: Sequence[HeadlineRow]) -> list[Part]:
    """Show each distinct architecture as the picks that make it."""
    parts: list[Part] = []
    for row in {row.architecture.id: row for row in rows}.values():
        cells = [
            (Cell(name, is_code=True), Cell(str(answer), is_code=True))
            for name, answer in row.architecture.answers.items()
        ]
        caption = f"{row.role}: architecture {row.architecture.id}"
        parts.append(Table((Column("Decision"), Column("Answer")), cells, caption))
    return parts
