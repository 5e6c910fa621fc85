"""`hwnas train`: train what a search picked, from scratch."""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli._app import Verb
from hwnas.cli._options import RunArgument
from hwnas.cli._progress import progress_for
from hwnas.cli._session import Session, command_line
from hwnas.cli._tables import headline_table, texts

VERB = Verb(
    order=70,
    examples=(
        "hwnas train runs/2026-11-22-digits-a1b2",
        "hwnas train runs/2026-11-22-digits-a1b2 --pick knee --epochs 100",
    ),
)


def command(
    session: Session,
    run: RunArgument,
    pick: Annotated[
        list[str] | None,
        typer.Option(
            "--pick",
            metavar="WHICH",
            help="best, knee, fastest, baseline or an architecture's id; repeatable. "
            "Default: train.picks of the run.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Epochs, instead of the run's.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Train anew what has been trained already.")
    ] = False,
) -> None:
    """Train picks of a search from scratch and evaluate each once on the test split."""
    from hwnas.study import Study

    study = Study.open(run, progress=progress_for(session), on_stage=session.stage)
    session.resume_command = command_line(
        "hwnas",
        "train",
        run,
        *(word for each in pick or () for word in ("--pick", each)),
        *(() if epochs is None else ("--epochs", epochs)),
    )
    session.start(study.title())
    rows = study.train(pick, epochs=epochs, again=again)
    session.stop_progress()
    session.say()
    session.say(headline_table(rows))
    for line in texts((row.role, row.architecture) for row in rows):
        session.say(line)
    session.finish(
        {"run": str(run), "rows": [row.model_dump(mode="json") for row in rows]},
        made=[("Run", run)],
        then=[(command_line("hwnas", "export", run), "write and measure the ONNX file")],
    )
