"""The mean and the softmax over axes of choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, register
from hwnas.graph.ops.layout import checked_axis

if TYPE_CHECKING:
    from torch import Tensor


@register("mean")
@dataclass(frozen=True)
class Mean(Primitive):
    """The mean over some axes.

    Attributes:
        axes: From 0, without the batch.
        keep: Whether these axes stay, with size 1; without any other they must.
    """

    axes: tuple[int, ...]
    keep: bool = False

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the shape that is left.

        Raises:
            ShapeError: The input lacks an axis, or nothing would be left.
        """
        if len(inputs) != 1:
            raise ShapeError(f"mean expects one input, got {len(inputs)}")
        gone = {checked_axis(self, axis, inputs[0]) for axis in self.axes}
        if self.keep:
            return tuple(1 if i in gone else size for i, size in enumerate(inputs[0]))
        left = tuple(size for i, size in enumerate(inputs[0]) if i not in gone)
        if not left:
            raise ShapeError(f"mean over all axes of {inputs[0]} leaves none", "set keep")
        return left

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the mean."""
        return inputs[0].mean(dim=[axis + 1 for axis in self.axes], keepdim=self.keep)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a ReduceMean."""
        import numpy as np

        axes = writer.constant("axes", np.array([axis + 1 for axis in self.axes], np.int64))
        return writer.emit("ReduceMean", [inputs[0], axes], keepdims=int(self.keep))


@register("softmax")
@dataclass(frozen=True)
class Softmax(Primitive):
    """exp(x) divided by its sum over one axis.

    Attributes:
        axis: From 0, without the batch.
    """

    axis: int

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape.

        Raises:
            ShapeError: The input lacks the axis.
        """
        if len(inputs) != 1:
            raise ShapeError(f"softmax expects one input, got {len(inputs)}")
        checked_axis(self, self.axis, inputs[0])
        return inputs[0]

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the shares."""
        return inputs[0].softmax(dim=self.axis + 1)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Softmax."""
        return writer.emit("Softmax", inputs, axis=self.axis + 1)
