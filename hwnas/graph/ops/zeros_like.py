"""Nothing, in the shape of something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, register

if TYPE_CHECKING:
    from torch import Tensor


@register("zeros_like")
@dataclass(frozen=True)
class ZerosLike(Primitive):
    """The input times zero: the value of a node into which no op leads."""

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape.

        Raises:
            ShapeError: There is not one input.
        """
        if len(inputs) != 1:
            raise ShapeError(f"zeros_like expects one input, got {len(inputs)}")
        return inputs[0]

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return zeros."""
        return inputs[0] * 0.0

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Mul by zero."""
        import numpy as np

        return writer.emit("Mul", [inputs[0], writer.constant("zero", np.zeros((), np.float32))])
