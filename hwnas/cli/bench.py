"""`hwnas bench`: measure any ONNX file on this device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hwnas.cli._app import Verb
from hwnas.cli._options import DeviceOption, ShapeOption
from hwnas.cli._progress import progress_for
from hwnas.cli._session import Session

VERB = Verb(
    order=90,
    examples=(
        "hwnas bench runs/2026-11-22-digits-a1b2/best.onnx",
        "hwnas bench a.onnx --against b.onnx --repeats 20",
    ),
)

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.")]


def command(
    session: Session,
    model: ModelArgument,
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", metavar="MODEL2", help="Another one; measured in turns."),
    ] = None,
    device: DeviceOption = None,
    shape: ShapeOption = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Rounds.")] = 8,
    table: Annotated[
        str, typer.Option("--table", metavar="TABLE", help="Latency table to predict with.")
    ] = "auto",
) -> None:
    """Measure ONNX files in turns, and compare with what the latency table predicts."""
    from hwnas.latency.files import parse_shapes
    from hwnas.study.bench import bench

    rows = bench(
        [model, *(against or [])],
        runtime=device,
        rounds=repeats,
        table=table,
        shapes=parse_shapes(shape or []),
        progress=progress_for(session),
    )
    session.stop_progress()
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("model", "measured", "95 % interval", "wall", "predicted"):
        shown.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row.cells())
    session.say(shown)
    for row in rows:
        for note in row.notes:
            session.say(f"note: {note}")
    session.finish({"models": [row.to_json() for row in rows]})
