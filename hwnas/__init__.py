"""hwnas: neural architecture search within a latency budget on your hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Study", "__version__"]

if TYPE_CHECKING:
    from hwnas.study import Study


def __getattr__(name: str) -> object:
    """Load the façade on first use: `import hwnas` alone must not cost its imports."""
    if name == "Study":
        from hwnas.study import Study

        return Study
    raise AttributeError(f"module 'hwnas' has no attribute {name!r}")
