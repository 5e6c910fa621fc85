"""Builds the application from the verbs in this folder."""

from __future__ import annotations

import importlib
import pkgutil
import signal
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Annotated

import typer
from rich.markup import escape

import hwnas
from hwnas.cli._guard import guarded


@dataclass(frozen=True)
class Verb:
    """What a verb's file says about it, besides its function `command`.

    Attributes:
        order: Place in the list of verbs.
        examples: Two command lines that end its help.
    """

    order: int
    examples: tuple[str, str]


def run() -> None:
    """Run the command line and exit with its code."""
    # `kill` and a closing terminal end a run as Ctrl-C does: with the command that resumes it.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    build()(prog_name="hwnas")


def build() -> typer.Typer:
    """Return the application with all verbs."""
    app = typer.Typer(
        name="hwnas",
        help="Find neural networks that are as accurate as possible within a latency budget on "
        "your hardware.",
        epilog=_epilog(("hwnas demo", "hwnas search cifar10_enas_micro --max-latency-ms 0.31")),
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, module in sorted(_verbs(), key=lambda pair: pair[1].VERB.order):
        app.command(name=name, epilog=_epilog(module.VERB.examples))(guarded(module.command))
    return app


def _verbs() -> list[tuple[str, ModuleType]]:
    folder = importlib.import_module("hwnas.cli")
    names = [m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_")]
    return [(name, importlib.import_module(f"hwnas.cli.{name}")) for name in names]


def _epilog(examples: tuple[str, str]) -> str:
    return "\n\n".join(["Examples:", *(escape(f"  {example}") for example in examples)])


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"hwnas {hwnas.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Take the flags that come before a verb."""


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
