"""What can be named: plug-ins with their settings, and the runs of a folder."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hwnas.errors import HwnasError
from hwnas.registry import Registry
from hwnas.spaces import SPACES, Published

#: Where the registry of each kind is.
PLACES: Mapping[str, str] = {
    "space": "hwnas.spaces:SPACES",
    "strategy": "hwnas.strategies:STRATEGIES",
    "dataset": "hwnas.data:DATASETS",
    "reward": "hwnas.objectives:REWARDS",
    "runtime": "hwnas.latency.runtimes:RUNTIMES",
    "estimator": "hwnas.estimators:ESTIMATORS",
    "executor": "hwnas.engine.executors:EXECUTORS",
    "tracker": "hwnas.tracking:TRACKERS",
    "section": "hwnas.report.sections:SECTIONS",
}


@dataclass(frozen=True)
class PluginRow:
    """A plug-in: its name, what it is, and what can be set."""

    name: str
    description: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class RunRow:
    """A run folder and how it stands."""

    path: Path
    state: str
    description: str


def registry(place: str) -> Registry[Any]:
    """Return the registry at ``module:ATTRIBUTE``."""
    module, _, attribute = place.partition(":")
    found: Registry[Any] = getattr(importlib.import_module(module), attribute)
    return found


def plugins(place: str) -> list[PluginRow]:
    """Return the plug-ins of one registry, by name."""
    return [
        PluginRow(name, registry(place).describe(name), _settings(getattr(plugin, "Config", None)))
        for name, plugin in registry(place).items()
    ]


@dataclass(frozen=True)
class NetworkRow:
    """A published network: its name, the space that it is of, and what it is."""

    name: str
    space: str
    network: Published

    @property
    def text(self) -> str | None:
        """The network in the form that other tools print, if its space has one."""
        plugin, found = SPACES.get(self.space), self.network
        config = plugin.Config.model_validate(dict(found.settings))
        return plugin(config, found.input_shape, found.classes).format(found.architecture)


def networks() -> list[NetworkRow]:
    """Return the published networks of all spaces."""
    return [
        NetworkRow(name, space, network)
        for space, plugin in SPACES.items()
        for name, network in plugin.published().items()
    ]


def runs(folder: Path) -> list[RunRow]:
    """Return the runs below a folder, newest first; damaged ones say why."""
    from hwnas.engine.run_folder import RunRecord

    rows = []
    for path in sorted(folder.glob("*/run.json"), key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            record = RunRecord(path.parent)
            config = record.config
            names = [config[key]["name"] for key in ("data", "space", "strategy")]
            text = f"{record.state:<11}  {' · '.join(names)}"
            rows.append(RunRow(path.parent, record.state, text))
        except (HwnasError, KeyError, TypeError) as error:
            message = error.message if isinstance(error, HwnasError) else "not a hwnas run"
            rows.append(RunRow(path.parent, "damaged", message))
    return rows


def _settings(config: type[BaseModel] | None) -> dict[str, Any]:
    if config is None:
        return {}
    return {
        name: {
            "default": None
            if field.is_required()
            else _plain(field.get_default(call_default_factory=True)),
            "description": field.description or "",
        }
        for name, field in config.model_fields.items()
    }


def _plain(value: object) -> object:
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, (tuple, list, set, frozenset)):
        return [_plain(each) for each in value]
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return str(value)
