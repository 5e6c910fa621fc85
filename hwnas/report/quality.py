"""What a run's scores say: the one place where the report knows of its task."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hwnas.report import figures, formats
from hwnas.supernet.tasks import TASKS


class Quality:
    """Accuracy, perplexity …: how scores in [0, 1] are written and drawn.

    Args:
        task: Name of the task.
    """

    def __init__(self, task: str) -> None:
        self._task = TASKS.get(task)()
        self.name = self._task.quality
        self.is_less_better = self._task.better == "less"

    def text(self, score: float | None, decimals: int = 1) -> str:
        """Return a score for people, ``97.2 %`` (a narrow space before the sign) or ``5.3``."""
        if score is None:
            return formats.MISSING
        return self._task.text(score, decimals).replace(" ", "\u202f")

    def drawn(self, score: float | None) -> float | None:
        """Return a score as an axis has it; None for what cannot be drawn."""
        value = None if score is None else self._task.drawn(score)
        return value if value is not None and math.isfinite(value) else None

    def all_drawn(self, scores: Iterable[float | None]) -> list[float | None]:
        """Return `drawn` of each score."""
        return [self.drawn(score) for score in scores]

    def title(self, which: str) -> str:
        """Return the title of an axis: ``Validation accuracy (%)``."""
        unit = self._task.unit.strip()
        return f"{which} {self.name}" + (f" ({unit})" if unit else "")

    def axis(self, which: str) -> dict[str, object]:
        """Return an axis on which better is higher up."""
        turned = {"autorange": "reversed"} if self.is_less_better else {}
        return figures.axis(self.title(which), **turned)

    def hover(self, variable: str) -> str:
        """Return the part of a hover text that shows a drawn score, such as ``%{y:.2f} %``."""
        return f"%{{{variable}:.2f}}{self._task.unit}"
