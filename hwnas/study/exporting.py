"""Writes a trained network as ONNX, checks it against PyTorch, and measures it on the device."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hwnas
from hwnas.engine.files import replace_file
from hwnas.errors import DeviceError
from hwnas.supernet.tasks import TASKS

if TYPE_CHECKING:
    import numpy as np

    from hwnas.data import Dataset
    from hwnas.graph import Graph
    from hwnas.latency.timing import Measurement
    from hwnas.supernet.weights import WeightStore

_PARITY_IMAGES = 64


@dataclass(frozen=True)
class Exported:
    """An ONNX file and what is known of it.

    Attributes:
        onnx: The file, relative to the run folder, or absolute if it was written elsewhere.
        card: The model card beside it.
        opset: ONNX opset.
        max_abs_difference: Largest absolute difference of a logit against PyTorch; None if it was
            not verified.
        parity_samples: Images that were compared.
        same_class: Share of them with the same most likely class.
        measured_ms: Least clean CPU time of one inference; None if it was not measured.
        wall_ms: Least wall time.
        spread: Relative spread of the measurement.
        accepted: Samples that were undisturbed.
        predicted_ms: From the latency table.
        budget_ms: The latency budget.
        notes: What the user must know, such as a missed budget.
    """

    onnx: str
    card: str
    opset: int
    max_abs_difference: float | None = None
    parity_samples: int = 0
    same_class: float | None = None
    measured_ms: float | None = None
    wall_ms: float | None = None
    spread: float | None = None
    accepted: int = 0
    predicted_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    budget_ms: float | None = None
    accuracy_test: float | None = None
    task: str = "classification"
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Exported:
        """Read what `to_json` wrote."""
        return cls(**value)

    def lines(self) -> list[tuple[str, str]]:
        """Return label and text of each fact, for people."""
        rows = []
        if self.accuracy_test is not None:
            task = TASKS.get(self.task)()
            rows.append((task.quality, f"{task.text(self.accuracy_test)} on the test split"))
        if self.max_abs_difference is not None:
            rows.append(
                (
                    "parity",
                    f"max |Δ| {self.max_abs_difference:.1e} against PyTorch, same class on "  # noqa: ISC004
                    f"{self.same_class:.1%} of {self.parity_samples} images",
                )
            )
        if self.predicted_ms is not None:
            interval = ""
            if self.low_ms is not None and self.high_ms is not None:
                interval = f" ({self.low_ms:.3g} to {self.high_ms:.3g})"
            rows.append(("predicted", f"{self.predicted_ms:.3g} ms{interval}"))
        if self.measured_ms is not None and self.wall_ms is not None:
            spread = "" if self.spread is None else f", spread {self.spread:.0%}"
            rows.append(
                ("measured", f"{self.measured_ms:.3g} ms (wall {self.wall_ms:.3g} ms){spread}")
            )
        rows += [("note", note) for note in self.notes]
        return rows


def weights_of(store: WeightStore) -> dict[str, np.ndarray[Any, Any]]:
    """Return weights as the ONNX writer wants them."""
    return {name: value.numpy() for name, value in store.state().items()}


def check_parity(
    model: Any, graph: Graph, store: WeightStore, dataset: Dataset
) -> tuple[float, int, float]:
    """Compare ONNX Runtime with PyTorch on validation images.

    Returns:
        Largest absolute difference of a logit, number of images, share with the same class.

    Raises:
        DeviceError: They differ by more than float32 rounding: the file must not be used.
    """
    import torch

    from hwnas.export.verify import parity
    from hwnas.supernet.run import run
    from hwnas.supernet.tasks import task_of

    inputs = task_of(dataset).inputs(dataset, _PARITY_IMAGES)

    def reference(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with torch.no_grad():
            logits: np.ndarray[Any, Any] = run(graph, store, torch.from_numpy(x)).numpy()
        return logits

    found = parity(model, reference, inputs.numpy())
    if not found.holds:
        raise DeviceError(
            f"the ONNX file computes something else than PyTorch: logits differ by up to "
            f"{found.max_abs_difference:.3g} on {found.samples} images",
            "do not use the file; this is a mistake in hwnas or in ONNX Runtime: report it",
        )
    return found.max_abs_difference, found.samples, found.same_class


def judge_latency(
    measured: Measurement, predicted_ms: float | None, budget_ms: float | None
) -> list[str]:
    """Return plain sentences on a measurement: missed budget, missed prediction, disturbance."""
    notes = []
    if budget_ms is not None and measured.ms > budget_ms:
        notes.append(
            f"it misses the budget: measured {measured.ms:.3g} ms, budget {budget_ms:.3g} ms "
            f"({measured.ms / budget_ms - 1:+.0%})"
        )
    if predicted_ms is not None and abs(measured.ms / predicted_ms - 1) > _LARGE_ERROR:
        notes.append(
            f"the prediction is off by {predicted_ms / measured.ms - 1:+.0%} "
            f"({predicted_ms:.3g} ms predicted, {measured.ms:.3g} ms measured)"
        )
    if measured.accepted == 0:
        notes.append("the machine was never calm while measuring: bench it again when it is idle")
    return notes


_LARGE_ERROR = 0.2


def write_card(path: Path, exported: Exported, facts: Mapping[str, Any]) -> None:
    """Write the model card: JSON beside the ONNX file, and the same in Markdown.

    Raises:
        RunFolderError: They cannot be written.
    """
    value = {"hwnas": hwnas.__version__, **facts, **exported.to_json()}
    replace_file(path.with_suffix(".json"), (json.dumps(value, indent=1) + "\n").encode())
    lines = [f"# {Path(exported.onnx).name}", ""]
    lines += [f"- **{label}**: {text}" for label, text in exported.lines()]
    lines += [""]
    for label, fact in facts.items():
        if isinstance(fact, Mapping):
            lines += [f"## {label}", "", *(f"- {key}: {each}" for key, each in fact.items()), ""]
        else:
            lines += [f"- {label}: {fact}"]
    replace_file(path.with_suffix(".md"), ("\n".join(lines).rstrip() + "\n").encode())
