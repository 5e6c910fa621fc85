"""The command line: one file a verb. A new file is a new verb; nothing else has to be edited."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its code."""
    from hwnas.cli._app import run

    run()
