"""One registry for all plug-ins: a file in the right folder, or an entry point, and nothing else.

A room creates one `Registry`; a plug-in file registers its class under a name. The folder is
walked on first use, so that importing hwnas stays cheap. Files that start with an underscore are
private helpers, not plug-ins. Plug-in files must not import torch, onnxruntime, scikit-learn or
plotly at module level: listing and validating need their configuration only.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from hwnas.errors import HwnasError, UserInputError, nearest

T = TypeVar("T")


class PluginConfig(BaseModel):
    """Settings of a plug-in: immutable, and unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def split_reference(text: str) -> tuple[str, dict[str, object]]:
    """Split ``NAME`` or ``NAME:key=value,key=value`` into a name and settings; values are YAML.

    Raises:
        UserInputError: A setting has no value, or is given twice.
    """
    import yaml

    name, _, rest = text.partition(":")
    settings: dict[str, object] = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals or not key or not value:
            raise UserInputError(
                f"{text!r}: expected settings such as key=value, got {part!r}",
                f"write {name}:key=value,key=value",
            )
        if key in settings:
            raise UserInputError(f"{text!r} sets {key!r} twice", "give it once")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            settings[key] = value
    return name.strip(), settings


class Registry(Generic[T]):
    """The plug-ins of one kind, by name.

    Args:
        kind: What one plug-in is called in messages, such as ``"space"``.
        package: The folder of plug-in files, such as ``"hwnas.spaces"``. It is also the entry-point
            group under which other distributions offer theirs.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
        self.package = package
        self._plugins: dict[str, type[T]] = {}
        self._is_loaded = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return a class decorator that registers a plug-in under `name`.

        Raises:
            HwnasError: Two plug-ins claim the same name.
        """

        def decorate(plugin: type[T]) -> type[T]:
            other = self._plugins.get(name)
            if other is not None and other.__qualname__ != plugin.__qualname__:
                raise HwnasError(
                    f"two plug-ins claim the {self.kind} {name!r}: "
                    f"{other.__module__}.{other.__qualname__} and "
                    f"{plugin.__module__}.{plugin.__qualname__}",
                    "rename one of them",
                )
            self._plugins[name] = plugin
            return plugin

        return decorate

    def get(self, name: str) -> type[T]:
        """Return the plug-in called `name`.

        Raises:
            UserInputError: No plug-in has that name; the message lists the nearest ones.
        """
        self._load()
        try:
            return self._plugins[name]
        except KeyError:
            raise UserInputError(
                f"unknown {self.kind} {name!r}",
                f"{nearest(name, self._plugins)} List all with: hwnas ls {self.plural}",
            ) from None

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._load()
        return sorted(self._plugins)

    def items(self) -> Iterator[tuple[str, type[T]]]:
        """Yield name and class of each plug-in, sorted by name."""
        for name in self.names():
            yield name, self._plugins[name]

    def describe(self, name: str) -> str:
        """Return the first line of a plug-in's docstring."""
        return (self.get(name).__doc__ or "").strip().split("\n")[0]

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        folder = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(folder.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{self.package}.{module.name}")
        for entry_point in entry_points(group=self.package):
            entry_point.load()
