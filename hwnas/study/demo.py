"""Everything once, on handwritten digits: what `hwnas demo` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.engine.progress import Progress
from hwnas.report.results import HeadlineRow
from hwnas.study.outcome import OnStage
from hwnas.study.study import Study

RECIPE = "digits_demo"
#: The time for which the recipe's numbers of epochs are meant.
_RECIPE_SECONDS = 60.0
_SHOWN = ("baseline", "knee", "fastest", "best")


@dataclass(frozen=True)
class Done:
    """What the demo made.

    Attributes:
        folder: The run folder.
        rows: Baseline, knee, fastest and best.
        onnx: The exported network.
        report: The report.
        notes: What the user must know, such as a missed budget.
    """

    folder: Path
    rows: list[HeadlineRow]
    onnx: Path
    report: Path
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "run": str(self.folder),
            "onnx": str(self.onnx),
            "report": str(self.report),
            "rows": [row.model_dump(mode="json") for row in self.rows],
            "notes": self.notes,
        }


class Demo:
    """Profile, search, train, export, report.

    Args:
        seconds: About how long search and training may take together on two ordinary cores.
        max_latency_ms: The budget; by default what half of the space keeps to.
        device: Name of the runtime.
        seed: Seed of the run.
        resume: A demo's run folder to go on with; the other arguments are then not used.
        progress: Told how far long tasks are.
        on_stage: Told of each finished stage.
    """

    stages = ("profile", "search", "retrain", "export", "report")

    def __init__(
        self,
        seconds: float = _RECIPE_SECONDS,
        *,
        max_latency_ms: float | None = None,
        device: str | None = None,
        seed: int | None = None,
        resume: Path | None = None,
        progress: Progress | None = None,
        on_stage: OnStage | None = None,
    ) -> None:
        self.on_stage = on_stage
        if resume is not None:
            self.study = Study.open(resume, progress=progress, on_stage=on_stage)
            return
        study = Study(RECIPE)
        share = seconds / _RECIPE_SECONDS
        changes = [
            f"search.epochs={max(2, round(share * study.config.search.epochs))}",
            f"train.epochs={max(2, round(share * study.config.train.epochs))}",
        ]
        for key, value in (
            ("objective.max_latency_ms", max_latency_ms),
            ("latency.runtime", device),
            ("seed", seed),
        ):
            if value is not None:
                changes.append(f"{key}={value}")
        self.study = Study(RECIPE, changes, progress=progress, on_stage=on_stage)
        self.study.command = f"hwnas demo --seconds {seconds:g}"

    def run(
        self, out: Path | None = None, *, on_folder: Callable[[Path], None] | None = None
    ) -> Done:
        """Do all stages that are not finished yet.

        Args:
            out: The run folder to make.
            on_folder: Told the run folder before anything long begins.

        Raises:
            HwnasError: As the methods of `Study`.
        """
        study = self.study
        folder = study.search(out, on_folder=on_folder).folder
        study.train()
        exports = study.export_all()
        study.verify_predictions()
        report = study.report()
        rows = {row.role: row for row in study.rows()}
        best = exports["best"]
        return Done(
            folder=folder,
            rows=[rows[role] for role in _SHOWN],
            onnx=folder / best.onnx,
            report=report,
            notes=best.notes,
        )
