"""Reads a configuration: file or recipe, then overrides, then every mistake at once."""

from __future__ import annotations

import copy
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hwnas.errors import ConfigError, UserInputError, nearest
from hwnas.study.config import RunConfig
from hwnas.study.sections import OfRegistry, Plugin
from hwnas.study.yaml_file import Parsed, parse

_WORDS = {
    "missing": "is required",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_parsing": "expected a number",
    "float_type": "expected a number",
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "string_type": "expected a text",
    "model_type": "expected a mapping of settings",
    "model_attributes_type": "expected a mapping of settings",
    "dict_type": "expected a mapping of settings",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "finite_number": "expected a finite number",
    "string_pattern_mismatch": "expected letters, digits and . _ - only",
}


def recipes() -> dict[str, Traversable]:
    """Return the packaged configurations by name."""
    folder = files("hwnas.recipes")
    found = [each for each in folder.iterdir() if each.name.endswith(".yaml")]
    return {each.name.removesuffix(".yaml"): each for each in sorted(found, key=lambda e: e.name)}


def recipe_text(name: str) -> str:
    """Return the text of a recipe.

    Raises:
        UserInputError: There is no such recipe; the nearest ones are named.
    """
    known = recipes()
    if name not in known:
        raise UserInputError(
            f"unknown recipe {name!r}", f"{nearest(name, known)} List all with: hwnas ls recipes"
        )
    return known[name].read_text(encoding="utf-8")


def read_source(source: str | Path) -> tuple[str, str]:
    """Return a name for messages and the text of a configuration file or a recipe.

    Raises:
        UserInputError: Neither a file nor a recipe, or the file cannot be read.
    """
    path = Path(source)
    if not path.exists() and str(source) in recipes():
        return f"recipe {source}", recipe_text(str(source))
    try:
        return str(path), path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserInputError(
            f"{source} is neither a file nor a recipe",
            f"{nearest(str(source), recipes())} Write one with: hwnas init RECIPE {source}"
            if path.suffix
            else f"{nearest(str(source), recipes())} List all with: hwnas ls recipes",
        ) from None
    except IsADirectoryError:
        raise UserInputError(
            f"{source} is a folder, not a configuration file",
            f"to go on with a run: hwnas search --resume {source}",
        ) from None
    except UnicodeDecodeError as error:
        raise UserInputError(f"{source} is not a text file: {error.reason}") from error
    except OSError as error:
        raise UserInputError(f"{source} cannot be read: {error.strerror}") from error


def load_config(
    source: str | Path | Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> RunConfig:
    """Read, override and validate a configuration.

    Args:
        source: A file, the name of a recipe, a mapping as the file would give it, or None for the
            defaults.
        overrides: ``a.b=value`` each, the value in YAML; they are applied in order.

    Raises:
        ConfigError: All mistakes of the file and of the overrides.
        UserInputError: There is no such file or recipe.
    """
    name, parsed = "configuration", Parsed(value={})
    if isinstance(source, (str, Path)):
        name, text = read_source(source)
        parsed = parse(text)
    elif source is not None:
        parsed = Parsed(value=copy.deepcopy(dict(source)))
    value, problems = parsed.value, list(parsed.problems)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        problems.append(f"expected a mapping of sections, not {_shown(value)}")
    if problems and (not isinstance(value, dict) or not value):
        raise ConfigError(name, problems)
    overridden = _override(value, overrides, problems)
    try:
        config = RunConfig.model_validate(value)
    except ValidationError as error:
        problems += _explain(error, value, parsed.lines, overridden)
    if problems:
        raise ConfigError(name, problems)
    return config


def _override(
    value: dict[str, Any], overrides: Iterable[str], problems: list[str]
) -> set[tuple[str, ...]]:
    """Apply overrides in place; return the paths that they set."""
    applied: set[tuple[str, ...]] = set()
    for override in overrides:
        dotted, equals, text = override.partition("=")
        path = tuple(part.strip() for part in dotted.split("."))
        if not equals or not all(path):
            problems.append(f"--set {override}: expected KEY.KEY=VALUE, such as search.epochs=10")
            continue
        # A bar opens a block of lines in YAML; on one line it is NAS-Bench-201's |op~0|+….
        parsed = Parsed(value=text) if text.startswith("|") and "\n" not in text else parse(text)
        if parsed.problems:
            problems += [f"--set {override}: {problem}" for problem in parsed.problems]
            continue
        here: Any = value
        for depth, part in enumerate(path[:-1], start=1):
            below = here.get(part)
            if isinstance(below, str):  # the short form of a section: only its name
                below = here[part] = {"name": below}
            elif below is None:
                below = here[part] = _default_section(path[:depth])
            elif not isinstance(below, dict):
                problems.append(f"--set {override}: {part} has no settings of its own")
                break
            here = below
        else:
            here[path[-1]] = parsed.value
            applied.add(path)
    return applied


def _default_section(path: tuple[str, ...]) -> dict[str, Any]:
    """Return what a section that the file leaves out starts from: its default plug-in's name."""
    model: type[BaseModel] | None = RunConfig
    for part in path[:-1]:
        field = model.model_fields.get(part) if model is not None else None
        model = None if field is None else _model_in(field.annotation)
    field = model.model_fields.get(path[-1]) if model is not None else None
    if field is None or not any(isinstance(each, OfRegistry) for each in field.metadata):
        return {}
    default = field.get_default(call_default_factory=True, validated_data={})
    return dict(default)


def _explain(
    error: ValidationError,
    value: dict[str, Any],
    lines: Mapping[tuple[str | int, ...], int],
    overridden: set[tuple[str, ...]],
) -> list[str]:
    """Turn pydantic's errors into one sentence each, in the order of the file."""
    found: list[tuple[int, str]] = []
    for each in error.errors(include_url=False):
        path = each["loc"]
        dotted = ".".join(str(part) for part in path) or "the file"
        if each["type"] == "extra_forbidden":
            known = _known_names(path[:-1], value)
            what = f"unknown setting. {nearest(str(path[-1]), known)}"
        elif each["type"] in _WORDS:
            what = _WORDS[each["type"]]
            if each["type"] != "missing":
                what += f", got {_shown(each['input'])}"
        else:
            what = each["msg"].removeprefix("Value error, ").replace("Input should", "should")
            if each["type"] not in ("plugin", "value_error"):
                what += f", got {_shown(each['input'])}"
        line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 0)
        is_override = any(
            path[: len(each)] == each or (each[: len(path)] == path and path not in lines)
            for each in overridden
        )
        where = "--set " if is_override else f"line {line}: " if line else ""
        found.append((line, f"{where}{dotted}: {what}"))
    return [text for _, text in sorted(found, key=lambda pair: pair[0])]


def _known_names(path: tuple[str | int, ...], value: object) -> list[str]:
    """Return the settings that exist in the section at `path`."""
    model: type[BaseModel] | None = RunConfig
    is_plugin = False
    for part in path:
        if model is None or not isinstance(part, str) or part not in model.model_fields:
            return []
        field = model.model_fields[part]
        value = value.get(part) if isinstance(value, dict) else None
        of_registry = next((m for m in field.metadata if isinstance(m, OfRegistry)), None)
        is_plugin = of_registry is not None
        if of_registry is not None:
            name = value.get("name") if isinstance(value, dict) else value
            model = of_registry.settings_of(name)
        else:
            model = _model_in(field.annotation)
    names = list(model.model_fields) if model is not None else []
    return [*names, "name"] if is_plugin else names


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Return the model in ``Model`` or ``Model | None``."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        found = (_model_in(each) for each in typing.get_args(annotation))
        return next((each for each in found if each is not None), None)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return None if issubclass(annotation, Plugin) else annotation
    return None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
