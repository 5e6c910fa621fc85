"""Halving an image without losing half of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import (
    Composite,
    OnnxNodeWriter,
    Primitive,
    RunMode,
    Shape,
    image_shape,
    register,
)

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.graph.builder import GraphBuilder, Value
    from hwnas.kernels.form import Form


@register("shift")
@dataclass(frozen=True)
class Shift(Primitive):
    """Drop the first row and column, so that a stride of two reads the odd positions.

    A zero row or column is added at the end of an odd side: both paths of a factorised reduction
    then give ceil(side / 2).
    """

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (C, H - 1, W - 1), each side rounded up to an odd number."""
        channels, height, width = image_shape(self, inputs)
        return (channels, height - 1 + height % 2, width - 1 + width % 2)

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the shifted images."""
        from torch.nn.functional import pad

        x = inputs[0][:, :, 1:, 1:]
        rows, columns = (size % 2 for size in inputs[0].shape[2:])
        return pad(x, (0, columns, 0, rows)) if rows or columns else x

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Slice, and a Pad where a side is odd."""
        import numpy as np

        _, height, width = writer.input_shapes[0]
        starts = writer.constant("starts", np.array([1, 1], np.int64))
        ends = writer.constant("ends", np.array([height, width], np.int64))
        axes = writer.constant("axes", np.array([2, 3], np.int64))
        x = writer.emit("Slice", [inputs[0], starts, ends, axes])
        if height % 2 == 0 and width % 2 == 0:
            return x
        pads = np.array([0, 0, 0, 0, 0, 0, height % 2, width % 2], np.int64)
        return writer.emit("Pad", [x, writer.constant("pads", pads)])


@register("factorized_reduction")
@dataclass(frozen=True)
class FactorizedReduction(Composite):
    """Two 1×1 convolutions of stride two, the second shifted by one pixel, side by side.

    Half of the channels see the even positions and half the odd ones; batch norm follows
    (ENAS `_factorized_reduction`).

    Attributes:
        channels: Output channels; must be even.
        relu: Whether a ReLU comes first.
    """

    channels: int
    relu: bool = False

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the normalised concatenation.

        Raises:
            ShapeError: The number of channels is odd.
        """
        if self.channels % 2:
            raise ShapeError(f"factorized_reduction: {self.channels} channels cannot be halved")
        x = g.relu(inputs[0]) if self.relu else inputs[0]
        half = self.channels // 2
        even = g.conv(x, channels=half, stride=2, weights="even")
        odd = g.conv(g.shift(x), channels=half, stride=2, weights="odd")
        return g.batch_norm(g.concat(even, odd), weights="bn")

    def fused(self, inputs: int) -> Form | None:
        """Return one branch that reads the image once."""
        from hwnas.kernels.form import Form
        from hwnas.kernels.plan import Branch, Plan

        weights = (("even/weight",), ("odd/weight",), ("bn/scale",), ("bn/shift",))
        return Form(Plan((Branch("reduction", relu_before=self.relu),)), weights, ("bn",))
