"""An architecture that the configuration gives: there is nothing to search, only to train."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.errors import UserInputError, nearest
from hwnas.graph.architecture import Architecture
from hwnas.spaces import SearchSpace

PUBLISHED = "published:"
_HINT = f"give a JSON file with the picks, or {PUBLISHED}NAME"


def given_architecture(value: str | Mapping[str, Any], space: SearchSpace) -> Architecture:
    """Return the architecture that `architecture` in a configuration means.

    Args:
        value: The answers by name; or a JSON file with them, such as a model card; or
            ``published:`` with the name of a network that the space publishes; or the text that
            `SearchSpace.parse` reads, or a file with it.
        space: The space that it must be of.

    Raises:
        UserInputError: No such network or file, a malformed text, or it is of another space.
    """
    if isinstance(value, Mapping):
        architecture = Architecture.from_json(value)
    elif value.startswith(PUBLISHED):
        architecture = _published(value.removeprefix(PUBLISHED).strip(), space)
    elif _is_path(value):
        architecture = _from_file(Path(value), space)
    else:
        architecture = space.parse(value)
    space.graph(architecture)  # refuses one of another space
    return architecture


def _is_path(value: str) -> bool:
    """Tell a file from the text of an architecture, which is more than one word."""
    exists = os.path.isfile(value)  # noqa: PTH113  # Path.is_file raises on a text of 300 letters
    return exists or value.endswith(".json") or not re.search(r"[\s(|]", value.strip())


def _published(name: str, space: SearchSpace) -> Architecture:
    known = space.published()
    if name not in known:
        raise UserInputError(
            f"architecture: {type(space).__name__} publishes no network {name!r}",
            f"{nearest(name, known)} It publishes: {', '.join(known) or 'none'}",
        )
    return known[name].architecture


def _from_file(path: Path, space: SearchSpace) -> Architecture:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserInputError(f"architecture: {path} cannot be read: {error}", _HINT) from error
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        if path.suffix != ".json":
            return space.parse(text)
        raise UserInputError(f"architecture: {path} cannot be read: {error}", _HINT) from error
    for key in ("architecture", "answers"):  # a model card, a record of a run
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if isinstance(found, dict):
        found = {name: value for name, value in found.items() if name != "id"}
    return Architecture.from_json(found)
