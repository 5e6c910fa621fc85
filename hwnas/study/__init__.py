"""The façade: check, profile, search, train, export, bench, predict and report, from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["RunConfig", "Study", "load_config"]

if TYPE_CHECKING:
    from hwnas.study.config import RunConfig
    from hwnas.study.load import load_config
    from hwnas.study.study import Study

_PLACES = {
    "RunConfig": "hwnas.study.config",
    "Study": "hwnas.study.study",
    "load_config": "hwnas.study.load",
}


def __getattr__(name: str) -> object:
    """Load a name on first use: the command line's help must not pay for it."""
    import importlib

    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'hwnas.study' has no attribute {name!r}")
