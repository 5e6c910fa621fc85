"""`hwnas profile`: measure a latency table of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from hwnas.study.remote import Imported

VERB = Verb(
    order=50,
    examples=(
        "hwnas profile --space conv_chain --out my_machine.json",
        "hwnas profile --space conv_chain --bundle phone.zip",
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
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", metavar="ZIP", help="Write what another device needs to measure itself."
        ),
    ] = None,
    imported: Annotated[
        Path | None,
        typer.Option(
            "--import", metavar="PATH", help="Make a table of results.json or of block latencies."
        ),
    ] = None,
    ssh: Annotated[
        str | None,
        typer.Option("--ssh", metavar="USER@HOST[:PORT]", help="Measure that machine, over SSH."),
    ] = None,
    sets: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
) -> None:
    """Measure this machine: the kernels that networks of a space are made of."""
    from hwnas.study import Study
    from hwnas.study.remote import import_file

    changes = overrides(sets, seed=seed, device=device, space=space)
    for key, value in (("profile_samples", samples), ("profile_rounds", repeats)):
        if value is not None:
            changes.append(f"latency.{key}={value}")
    if imported is not None:
        _finish(session, import_file(imported, out, bundle))
        return
    study = Study(file, changes, progress=progress_for(session))
    if bundle is not None:
        packed = study.bundle(bundle)
        session.stop_progress()
        session.say(
            f"{packed.kernels} kernels · {packed.networks} networks · {packed.size / 1e3:.0f} kB"
        )
        session.finish(
            {"bundle": str(packed.path), "kernels": packed.kernels, "networks": packed.networks},
            made=[("Bundle", packed.path)],
            then=[
                ("python run.py", "on the other device, in the unpacked bundle"),
                (
                    command_line("hwnas", "profile", "--import", "results.json"),
                    "here, with the file that it wrote",
                ),
            ],
        )
        return
    if ssh is not None:
        found = study.profile_over_ssh(ssh, out)
        session.stop_progress()
        _finish(session, found)
        return
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


def _finish(session: Session, found: Imported) -> None:
    session.say(found.summary)
    for note in found.notes:
        session.say(note)
    search = command_line("hwnas", "search", "FILE", "--set", f"latency.table={found.path}")
    session.finish(
        found.to_json(),
        made=[("Table" if found.is_table else "File", found.path)],
        then=[(search, "search for that device")] if found.is_table else [],
    )
