"""`hwnas search`: measure the machine if needed, then search."""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli._app import Verb
from hwnas.cli._duration import seconds_of
from hwnas.cli._options import (
    BudgetOption,
    DeviceOption,
    OutOption,
    ResumeOption,
    SeedOption,
    SetOption,
    SpaceOption,
    overrides,
)
from hwnas.cli._progress import progress_for
from hwnas.cli._session import Session, command_line
from hwnas.cli._tables import candidates_table, texts
from hwnas.errors import UserInputError

VERB = Verb(
    order=60,
    examples=(
        "hwnas search cifar10_enas_micro --max-latency-ms 0.31 --seed 1",
        "hwnas search --resume runs/2026-11-22-digits-a1b2",
    ),
)

_NO_LATENCY = "latency plays no part in this run: there is nothing to find out before it"


def command(
    session: Session,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="Configuration file, or the name of a recipe."),
    ] = None,
    device: DeviceOption = None,
    max_latency_ms: BudgetOption = None,
    space: SpaceOption = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", metavar="NAME", help="See: hwnas ls strategies.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="TIME", help="Time for the search, such as 90s, 30m, 2h."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Children of a search by trials.")
    ] = None,
    seed: SeedOption = None,
    sets: SetOption = None,
    out: OutOption = None,
    resume: ResumeOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop after the budget was found to be possible.")
    ] = False,
) -> None:
    """Search for networks; ends with the candidates within the budget, best first."""
    from hwnas.study import Study

    changes = overrides(
        sets,
        seed=seed,
        device=device,
        max_latency_ms=max_latency_ms,
        space=space,
        strategy=strategy,
    )
    if budget is not None:
        changes.append(f"search.time_budget_s={seconds_of(budget)}")
    if trials is not None:
        changes += ["search.loop=trials", f"search.trials={trials}"]
    progress = progress_for(session)
    if resume is not None:
        if file is not None or changes or out is not None:
            raise UserInputError(
                "--resume continues a run as it was configured; it takes no FILE and no changes",
                f"hwnas search --resume {resume}",
            )
        study = Study.open(resume, progress=progress, on_stage=session.stage)
    elif file is None:
        raise UserInputError(
            "a configuration file or a recipe is missing",
            "hwnas search FILE, or hwnas search --resume RUN; recipes: hwnas ls recipes",
        )
    else:
        study = Study(file, changes, progress=progress, on_stage=session.stage)
    study.command = command_line("hwnas", "search", file or "", *_flags(changes))
    session.start(study.title())
    if dry_run:
        feasible = study.feasibility()
        session.stop_progress()
        session.say(_NO_LATENCY if feasible is None else feasible.summary)
        session.finish({"budget_ms": None} if feasible is None else feasible.to_json())
        return
    found = study.search(out, on_folder=session.resumes("search"))
    session.stop_progress()
    session.say()
    session.say(candidates_table(found.candidates, found.budget_ms))
    for line in texts(("best", each.architecture) for each in found.candidates[:1]):
        session.say(line)
    run = found.folder
    session.finish(
        found.to_json(),
        made=[("Run", run)],
        then=[
            (command_line("hwnas", "train", run), "train the best one from scratch, then test it"),
            (command_line("hwnas", "report", run), "see how the search went"),
        ],
    )


def _flags(changes: list[str]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]
