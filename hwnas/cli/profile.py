"""`hwnas profile`: measure a latency table of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli._app import Verb
from hwnas.cli._options import (
    DeviceOption,
    OutOption,
    SeedOption,
    SetOption,
    SpaceOption,
    overrides,
)
from hwnas.cli._progress import progress_for
from hwnas.cli._session import Session, command_line

VERB = Verb(
    order=50,
    examples=(
        "hwnas profile --space conv_chain --out my_machine.json",
        "hwnas profile cifar10_enas_micro --samples 100 --compare old_table.json",
    ),
)


def command(
    session: Session,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="Configuration or recipe that names space and data."),
    ] = None,
    space: SpaceOption = None,
    device: DeviceOption = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=2, help="Networks of the space whose kernels are measured."),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", min=1, help="Rounds over all kernels.")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="OLD", help="A table to compare the new one with."),
    ] = None,
    sets: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
) -> None:
    """Measure this machine: the kernels that networks of a space are made of."""
    from hwnas.study import Study

    changes = overrides(sets, seed=seed, device=device, space=space)
    for key, value in (("profile_samples", samples), ("profile_rounds", repeats)):
        if value is not None:
            changes.append(f"latency.{key}={value}")
    study = Study(file, changes, progress=progress_for(session))
    made = study.profile(out, compare=compare)
    session.stop_progress()
    session.say(made.summary)
    if made.comparison:
        session.say(made.comparison)
    session.finish(
        made.to_json(),
        made=[("Table", made.path)],
        then=[
            (
                command_line(
                    "hwnas",
                    "search",
                    file or "digits_demo",
                    *(() if device is None else ("--device", device)),
                    "--set",
                    f"latency.table={made.path}",
                ),
                "search with it",
            )
        ],
    )
