"""`hwnas predict`: predict the latency of ONNX files from a table, without running them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hwnas.cli._app import Verb
from hwnas.cli._options import DeviceOption, ShapeOption
from hwnas.cli._session import Session, command_line

VERB = Verb(
    order=100,
    examples=(
        "hwnas predict runs/2026-11-22-digits-a1b2/best.onnx",
        "hwnas predict model.onnx --table my_machine.json --json",
    ),
)


def command(
    session: Session,
    models: Annotated[list[Path], typer.Argument(metavar="MODEL…", help="ONNX files.")],
    table: Annotated[
        str, typer.Option("--table", metavar="TABLE", help="A table's file; auto: this device's.")
    ] = "auto",
    device: DeviceOption = None,
    shape: ShapeOption = None,
) -> None:
    """Predict the latency of ONNX files on this device, with an interval."""
    from hwnas.latency.files import parse_shapes
    from hwnas.study.bench import open_note, predict

    rows = predict(models, runtime=device, table=table, shapes=parse_shapes(shape or []))
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("model", "predicted", "interval", "kernels", "in the table"):
        shown.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row.cells())
    session.say(shown)
    for row in rows:
        if row.refusal:
            session.say(f"note: {row.model}: {row.refusal}")
        if row.missing:
            session.say(f"note: {row.model}: the table lacks {len(row.missing)} kernels, such as")
            session.say(f"      {row.missing[0]}")
        if row.open_sizes:
            session.say(f"note: {open_note(row.model, row.open_sizes)}")
    session.finish(
        {"models": [row.to_json() for row in rows]},
        then=[(command_line("hwnas", "bench", models[0]), "measure it")],
    )
