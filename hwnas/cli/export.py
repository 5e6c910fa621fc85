"""`hwnas export`: write the ONNX file, verify it and measure it."""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli._app import Verb
from hwnas.cli._options import OutOption, PickOption, RunArgument
from hwnas.cli._progress import progress_for
from hwnas.cli._session import Session, command_line

VERB = Verb(
    order=80,
    examples=(
        "hwnas export runs/2026-11-22-digits-a1b2",
        "hwnas export runs/2026-11-22-digits-a1b2 --pick fastest --out small.onnx",
    ),
)


def command(
    session: Session,
    run: RunArgument,
    pick: PickOption = "best",
    out: OutOption = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare with PyTorch and measure.")
    ] = True,
) -> None:
    """Write a trained pick as ONNX, check it against PyTorch, and measure it on this device."""
    from hwnas.study import Study

    study = Study.open(run, progress=progress_for(session), on_stage=session.stage)
    session.resume_command = command_line("hwnas", "export", run, "--pick", pick)
    session.start(study.title())
    made = study.export(pick, out, verify=verify)
    session.stop_progress()
    session.say()
    for label, text in made.lines():
        session.say(f"{label:<11} {text}")
    session.finish(
        made.to_json(),
        made=[("ONNX", run / made.onnx), ("Card", run / made.card)],
        then=[
            (command_line("hwnas", "bench", run / made.onnx), "measure it again"),
            (command_line("hwnas", "report", run), "write the report"),
        ],
    )
