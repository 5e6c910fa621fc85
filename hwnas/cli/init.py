"""`hwnas init`: start from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli._app import Verb
from hwnas.cli._session import Session, command_line
from hwnas.errors import UserInputError

VERB = Verb(
    order=30,
    examples=("hwnas init digits_demo my.yaml", "hwnas init cifar10_enas_micro my.yaml --force"),
)


def command(
    session: Session,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="See: hwnas ls recipes.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The YAML file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented configuration, copied from a recipe."""
    from hwnas.study.load import recipe_text

    text = recipe_text(recipe)
    if file.exists() and not force:
        raise UserInputError(f"{file} exists already", "add --force to overwrite it")
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserInputError(
            f"{file} cannot be written: {error.strerror}", "choose another place"
        ) from error
    session.finish(
        {"recipe": recipe, "file": str(file)},
        made=[("File", file)],
        then=[
            (command_line("hwnas", "check", file), "validate it after your changes"),
            (command_line("hwnas", "search", file), "run it"),
        ],
    )
