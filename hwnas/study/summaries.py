"""One line for people on each finished stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.supernet.tasks import TASKS

if TYPE_CHECKING:
    from hwnas.study.config import RunConfig
    from hwnas.study.exporting import Exported


def search(config: RunConfig, found: Mapping[str, Any]) -> str:
    """Say how long the search was and how good its best candidate is."""
    best = found["candidates"][0]
    if best["accuracy"] is None:
        return f"none: the configuration gives the architecture {best['architecture']['id']}"
    compared = len(found["candidates"])
    return (
        f"{config.strategy.name} · {found['length']} · {compared} candidates compared · "
        f"best {_scored(found.get('task'), best['accuracy'])}"
    )


def train(task: str, done: Sequence[Mapping[str, Any]]) -> str:
    """Say how many networks were trained and how good the best is on the test split."""
    best = max(each["accuracy_test"] for each in done)
    noun = "network" if len(done) == 1 else "networks"
    return (
        f"{len(done)} {noun} from scratch · {done[0]['epochs']} epochs · "
        f"test up to {_scored(task, best)}"
    )


def export(exported: Exported) -> str:
    """Say what was written, how exact and how fast it is."""
    parts = [Path(exported.onnx).name, f"opset {exported.opset}"]
    if exported.max_abs_difference is not None:
        parts.append(f"max |Δ| {exported.max_abs_difference:.0e} against torch")
    if exported.measured_ms is not None:
        parts.append(f"{exported.measured_ms:.3g} ms")
    return " · ".join(parts)


def _scored(name: str | None, score: float) -> str:
    """Return a score in the words of its task."""
    task = TASKS.get(name or "classification")()
    is_plain = task.quality == "accuracy"
    return task.text(score) if is_plain else f"{task.quality} {task.text(score)}"
