"""The product of two tensors, value by value or channel by channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, register

if TYPE_CHECKING:
    from torch import Tensor


@register("multiply")
@dataclass(frozen=True)
class Multiply(Primitive):
    """The product of two tensors of one shape, or of an image and a factor for each channel.

    The factors are (C,) or (C, 1, 1), and come second.
    """

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the first input's shape.

        Raises:
            ShapeError: There are not two inputs of one shape, nor an image and its factors.
        """
        if len(inputs) == 2:
            first, second = inputs
            channels = first[0]
            if first == second:
                return first
            if len(first) == 3 and second in ((channels,), (channels, 1, 1)):
                return first
        raise ShapeError(
            "multiply expects two inputs of one shape, or an image (C, H, W) and a factor for "
            f"each channel (C,), got {inputs}"
        )

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the product."""
        x, factor = inputs
        return x * (factor[:, :, None, None] if factor.dim() < x.dim() else factor)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Mul, and an Unsqueeze before it for factors without height and width."""
        import numpy as np

        first, second = writer.input_shapes
        if len(second) == len(first):
            return writer.emit("Mul", inputs)
        axes = writer.constant("axes", np.array([2, 3], np.int64))
        return writer.emit("Mul", [inputs[0], writer.emit("Unsqueeze", [inputs[1], axes])])
