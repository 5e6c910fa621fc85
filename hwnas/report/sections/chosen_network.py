"""The chosen network, drawn."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from hwnas.report.cells import cell_drawings
from hwnas.report.parts import (
    Cell,
    Column,
    Command,
    Details,
    DrawnGraph,
    Fragment,
    Grid,
    Part,
    Table,
    Text,
)
from hwnas.report.results import Drawing
from hwnas.report.run_data import RunData
from hwnas.report.sections import SECTIONS, Section
from hwnas.spaces import SPACES


@SECTIONS.register("chosen_network")
class ChosenNetwork(Section):
    """The chosen network as a layered graph: its cells, or all of it."""

    order = 40
    title = "The chosen network"

    def applicable(self, run: RunData) -> str | None:
        """Need a drawing, or picks that say what the cells are."""
        if run.results is None:
            return "The run has no results yet, so no network was chosen."
        if not run.results.drawings and not _cells(run):
            return "The results have no drawing of the chosen network."
        return None

    def render(self, run: RunData) -> Fragment:
        """Return the cells, the whole network, and the arrows as tables."""
        assert run.results is not None
        row = run.results.chosen_row
        cells, drawings = _cells(run), run.results.drawings
        parts: list[Part] = []
        if row is not None:
            parts.append(Text(f"Architecture {row.architecture.id}, the {row.role} pick."))
            if row.architecture.text is not None:
                parts.append(Details("As text", [Command(row.architecture.text, "architecture")]))
        if cells:
            parts.append(Grid([DrawnGraph(each) for each in cells], is_wide=True))
        whole: list[Part] = [Grid([DrawnGraph(each) for each in drawings], is_wide=True)]
        if any(node.share is not None for each in drawings for node in each.nodes):
            whole.append(Text("Darker boxes take more of the latency.", is_small=True))
        if drawings and cells:
            parts.append(Details("The whole network", whole))
        elif drawings:
            parts.extend(whole)
        tables = [_edges(each) for each in (*cells, *drawings)]
        parts.append(Details("The connections as tables", tables))
        return tuple(parts)


def _cells(run: RunData) -> list[Drawing]:
    row = run.results.chosen_row if run.results else None
    return [] if row is None else cell_drawings(row.architecture.answers, outputs_of(run))


def outputs_of(run: RunData) -> Mapping[str, tuple[int, ...]]:
    """Return what makes the output of each cell, as far as the space of the run says it."""
    section, train = run.config.get("space"), run.config.get("train")
    name = run.plugin("space")
    if name not in SPACES.names() or not isinstance(section, Mapping):
        return {}
    changed = train.get("space") if isinstance(train, Mapping) else None
    settings = {**section, **(changed if isinstance(changed, Mapping) else {})}
    settings.pop("name", None)
    space = SPACES.get(name)
    try:
        return space.cell_outputs(space.Config.model_validate(settings))
    except ValidationError:  # a run of another version
        return {}


def _edges(drawing: Drawing) -> Table:
    labels = {node.id: f"{node.label} {node.detail}".strip() for node in drawing.nodes}
    rows = [
        (
            Cell(labels.get(edge.source, edge.source)),
            Cell(labels.get(edge.target, edge.target)),
            Cell(edge.label),
        )
        for edge in drawing.edges
    ]
    return Table((Column("From"), Column("To"), Column("Note")), rows, drawing.title)
