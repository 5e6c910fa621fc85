"""Does the ONNX file compute what PyTorch computes?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.errors import DeviceError

if TYPE_CHECKING:
    from onnx import ModelProto

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Parity:
    """How far two implementations of one network are apart.

    Attributes:
        max_abs_difference: Largest absolute difference of a logit.
        max_abs_logit: Largest absolute logit, to judge the difference by.
        samples: Number of images compared.
        same_class: Share of images with the same most likely class.
    """

    max_abs_difference: float
    max_abs_logit: float
    samples: int
    same_class: float

    @property
    def holds(self) -> bool:
        """Whether the difference is float32 rounding: within 1e-4 of the logits' size."""
        return self.max_abs_difference <= 1e-4 * max(1.0, self.max_abs_logit)


def parity(model: ModelProto, reference: Callable[[Array], Array], images: Array) -> Parity:
    """Compare ONNX Runtime's logits with those of a reference, on the same images.

    Args:
        model: The exported network.
        reference: Maps `[N, C, H, W]` float32 to `[N, classes]` logits.
        images: `[N, C, H, W]` float32, normalised as in training.

    Raises:
        DeviceError: The runtime refuses the model, or returns values that are not finite.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # The first session of a process decides for all: latency is measured without denormals.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        batch = session.get_inputs()[0].shape[0]
        size = batch if isinstance(batch, int) else len(images)
        whole = len(images) - len(images) % size
        got = np.concatenate(
            [
                session.run(None, {"input": np.ascontiguousarray(images[i : i + size])})[0]
                for i in range(0, whole, size)
            ]
        )
    except Exception as error:  # onnxruntime raises a family of its own with no common base
        raise DeviceError(f"ONNX Runtime refuses the exported model: {error}") from error
    expected = reference(images[:whole])
    if not np.isfinite(got).all():
        raise DeviceError(
            "the exported network returns values that are not finite",
            "its training diverged: lower train.learning_rate",
        )
    return Parity(
        max_abs_difference=float(np.abs(got - expected).max()),
        max_abs_logit=float(np.abs(expected).max()),
        samples=whole,
        same_class=float((got.argmax(-1) == expected.argmax(-1)).mean()),
    )
