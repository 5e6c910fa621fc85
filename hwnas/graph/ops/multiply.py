"""The product of two tensors, value by value."""

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
    """The product of two tensors of one shape."""

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the inputs' shape.

        Raises:
            ShapeError: There are not two inputs of one shape.
        """
        if len(inputs) != 2 or inputs[0] != inputs[1]:
            raise ShapeError(f"multiply expects two inputs of one shape, got {inputs}")
        return inputs[0]

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the product."""
        return inputs[0] * inputs[1]

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Mul."""
        return writer.emit("Mul", inputs)
