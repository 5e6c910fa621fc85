"""One offline `report.html` of a run, or of several to compare.

`build_report` reads run folders; `RunResults` is the schema of `results.json`, which a study
writes; sections live in `hwnas.report.sections`, one file each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.report.results import RunResults

if TYPE_CHECKING:
    from hwnas.report.build import build_report

__all__ = ["RunResults", "build_report"]


def __getattr__(name: str) -> object:
    """Load the builder on first use: a study that writes results need not import it."""
    if name == "build_report":
        from hwnas.report.build import build_report

        return build_report
    raise AttributeError(f"module 'hwnas.report' has no attribute {name!r}")
