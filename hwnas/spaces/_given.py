"""An architecture that the configuration gives: there is nothing to search, only to train."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.errors import UserInputError, nearest
from hwnas.graph.architecture import Architecture
from hwnas.spaces import SearchSpace

PUBLISHED = "published:"


def given_architecture(value: str | Mapping[str, Any], space: SearchSpace) -> Architecture:
    """Return the architecture that `architecture` in a configuration means.

    Args:
        value: The answers by name; or a JSON file with them, such as a model card; or
            ``published:`` with the name of a network that the space publishes.
        space: The space that it must be of.

    Raises:
        UserInputError: No such network or file, or it is of another space.
    """
    if isinstance(value, Mapping):
        architecture = Architecture.from_json(value)
    elif value.startswith(PUBLISHED):
        architecture = _published(value.removeprefix(PUBLISHED).strip(), space)
    else:
        architecture = _from_file(Path(value))
    space.graph(architecture)  # refuses one of another space
    return architecture


def _published(name: str, space: SearchSpace) -> Architecture:
    known = space.published()
    if name not in known:
        raise UserInputError(
            f"architecture: {type(space).__name__} publishes no network {name!r}",
            f"{nearest(name, known)} It publishes: {', '.join(known) or 'none'}",
        )
    return known[name].architecture


def _from_file(path: Path) -> Architecture:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserInputError(
            f"architecture: {path} cannot be read: {error}",
            f"give a JSON file with the picks, or {PUBLISHED}NAME",
        ) from error
    for key in ("architecture", "answers"):  # a model card, a record of a run
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if isinstance(found, dict):
        found = {name: value for name, value in found.items() if name != "id"}
    return Architecture.from_json(found)
