"""`hwnas doctor`: what is here, what is not, and why."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from hwnas.cli._app import Verb
from hwnas.cli._session import Session

VERB = Verb(order=10, examples=("hwnas doctor", "hwnas doctor --json > machine.json"))

_MARKS = {"ok": ("✓", "green"), "info": ("·", ""), "missing": ("–", "yellow"), "bad": ("✗", "red")}


def command(session: Session) -> None:
    """Show this machine, its runtimes and versions, and what is missing and why."""
    from hwnas.study.doctor import examine

    findings = examine()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for finding in findings:
        mark, style = _MARKS[finding.level]
        table.add_row(Text(mark, style=style), finding.subject, Text(finding.text))
    session.say(table)
    session.finish(
        {
            "healthy": all(finding.level != "bad" for finding in findings),
            "findings": [finding.to_json() for finding in findings],
        },
        then=[("hwnas demo", "all of it on handwritten digits, about a minute")],
    )
