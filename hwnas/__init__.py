"""hwnas: neural architecture search within a latency budget on your hardware."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Study", "__version__", "choice", "chosen", "integer", "one_of", "space_of"]

if TYPE_CHECKING:
    from hwnas.spaces.module import space_of
    from hwnas.spaces.torch_modules.choices import choice, chosen, integer, one_of
    from hwnas.study import Study

_CHOICES = "hwnas.spaces.torch_modules.choices"
_PLACES = {
    "Study": "hwnas.study",
    "choice": _CHOICES,
    "chosen": _CHOICES,
    "integer": _CHOICES,
    "one_of": _CHOICES,
    "space_of": "hwnas.spaces.module",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use: `import hwnas` alone must not cost its imports."""
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'hwnas' has no attribute {name!r}")
