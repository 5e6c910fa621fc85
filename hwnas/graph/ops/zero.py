"""An edge that carries nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, register, window_shape

if TYPE_CHECKING:
    from torch import Tensor


@register("zero")
@dataclass(frozen=True)
class Zero(Primitive):
    """Zeros of the input's shape, or of that of a strided 1×1 convolution.

    It is the `none` of DARTS and NAS-Bench-201: an edge that is not there, of the shape that the
    other candidates have.

    Attributes:
        stride: Step in both directions.
    """

    stride: int = 1

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (C, H', W').

        Raises:
            ShapeError: The input is no image.
        """
        return window_shape(self, inputs, None, 1, self.stride)

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return zeros of shape `[N, C, H', W']`; the input gets a gradient of zero."""
        return inputs[0][:, :, :: self.stride, :: self.stride] * 0.0

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Slice, where there is a stride, and a Mul by zero."""
        import numpy as np

        x = inputs[0]
        if self.stride > 1:
            _, height, width = writer.input_shapes[0]
            starts = writer.constant("starts", np.array([0, 0], np.int64))
            ends = writer.constant("ends", np.array([height, width], np.int64))
            axes = writer.constant("axes", np.array([2, 3], np.int64))
            steps = writer.constant("steps", np.array([self.stride] * 2, np.int64))
            x = writer.emit("Slice", [x, starts, ends, axes, steps])
        return writer.emit("Mul", [x, writer.constant("zero", np.zeros(1, np.float32))])
