"""The report of one run or of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write one offline HTML file.

    Args:
        runs: Run folders; several are compared.
        out: The file; by default inside the run, or beside the first of several.

    Raises:
        RunFolderError: A path is not a run, or the file cannot be written.
    """
    from hwnas.report.build import build_report

    return build_report(runs[0] if len(runs) == 1 else list(runs), out)


def write_animation(runs: Sequence[Path]) -> list[Path]:
    """Write `cells.gif` and `cells.png`, the cells sampled over a run, into each run.

    Raises:
        UserInputError: A run's architectures have no cells to draw.
        RunFolderError: A path is not a run, or a file cannot be written.
    """
    from hwnas.report.animation import animate

    return [path for run in runs for path in animate(run)]
