"""`hwnas predict`: predict the latency of ONNX files from a table, without running them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hwnas.cli._app import Verb
from hwnas.cli._options import DeviceOption
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
) -> None:
    """Predict the latency of ONNX files on this device, with an interval."""
    from hwnas.study.bench import predict

    rows = predict(models, runtime=device, table=table)
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("model", "predicted", "interval", "kernels", "in the table"):
        shown.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row.cells())
    session.say(shown)
    session.finish(
        {"models": [row.to_json() for row in rows]},
        then=[(command_line("hwnas", "bench", models[0]), "measure it")],
    )
