"""Batch normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.graph.op import (
    OnnxNodeWriter,
    Primitive,
    RunMode,
    Shape,
    WeightSpec,
    image_shape,
    register,
)

if TYPE_CHECKING:
    from torch import Tensor


@register("batch_norm")
@dataclass(frozen=True)
class BatchNorm(Primitive):
    """Normalise each channel (Ioffe & Szegedy 2015), then scale and shift it.

    Which statistics are used, and whether running ones follow, is the run's `RunMode`.

    Attributes:
        epsilon: Added to the variance.
    """

    epsilon: float = 1e-5

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        return image_shape(self, inputs)

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return scale, shift and the running statistics, each `[C]`."""
        shape = (inputs[0][0],)
        return {
            "scale": WeightSpec(shape, "ones"),
            "shift": WeightSpec(shape, "zeros"),
            "mean": WeightSpec(shape, "zeros", is_trainable=False),
            "variance": WeightSpec(shape, "ones", is_trainable=False),
        }

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the normalised `[N, C, H, W]`."""
        from torch.nn.functional import batch_norm

        needs_running = not mode.batch_statistics or mode.momentum > 0
        return batch_norm(
            inputs[0],
            weights["mean"] if needs_running else None,
            weights["variance"] if needs_running else None,
            weights["scale"],
            weights["shift"],
            training=mode.batch_statistics,
            momentum=mode.momentum,
            eps=self.epsilon,
        )

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a BatchNormalization in its inference form."""
        names = [writer.weight(each) for each in ("scale", "shift", "mean", "variance")]
        return writer.emit("BatchNormalization", [inputs[0], *names], epsilon=self.epsilon)
