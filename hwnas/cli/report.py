"""`hwnas report`: write the HTML report of one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.cli._app import Verb
from hwnas.cli._options import OutOption
from hwnas.cli._session import Session

VERB = Verb(
    order=110,
    examples=(
        "hwnas report runs/2026-11-22-digits-a1b2 --animate",
        "hwnas report runs/enas-0 runs/random-0 --out comparison.html --open",
    ),
)


def command(
    session: Session,
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Run folders; several are compared.")
    ],
    out: OutOption = None,
    should_open: Annotated[
        bool, typer.Option("--open", help="Open it in the browser afterwards.")
    ] = False,
    should_animate: Annotated[
        bool,
        typer.Option(
            "--animate",
            help="Also write cells.gif and cells.png into each run: the cells that were sampled, "
            "epoch by epoch.",
        ),
    ] = False,
) -> None:
    """Write one offline HTML file that says what was found and how far to trust it."""
    from hwnas.study.reporting import write_animation, write_report

    path = write_report(runs, out)
    made = [("Report", path)]
    pictures = write_animation(runs) if should_animate else []
    made += [("Cells", each) for each in pictures]
    if should_open:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    found: dict[str, Any] = {"report": str(path)}
    if should_animate:
        found["cells"] = [str(each) for each in pictures]
    session.finish(found, made=made)
