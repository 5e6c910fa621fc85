"""`hwnas report`: write the HTML report of one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli._app import Verb
from hwnas.cli._options import OutOption
from hwnas.cli._session import Session

VERB = Verb(
    order=110,
    examples=(
        "hwnas report runs/2026-11-22-digits-a1b2",
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
) -> None:
    """Write one offline HTML file that says what was found and how far to trust it."""
    from hwnas.study.reporting import write_report

    path = write_report(runs, out)
    if should_open:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    session.finish({"report": str(path)}, made=[("Report", path)])
