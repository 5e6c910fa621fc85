"""A tensor and a number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, register

if TYPE_CHECKING:
    from torch import Tensor


class _WithNumber(Primitive):
    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """Return the result."""

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape.

        Raises:
            ShapeError: There is not one input.
        """
        if len(inputs) != 1:
            raise ShapeError(f"{self.kind} expects one input, got {len(inputs)}")
        return inputs[0]

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the result."""
        return self.apply(inputs[0])


@register("scale")
@dataclass(frozen=True)
class Scale(_WithNumber):
    """The input times a number.

    Attributes:
        factor: The number.
    """

    factor: float

    def apply(self, x: Tensor) -> Tensor:
        """Return the product."""
        return x * self.factor

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Mul."""
        import numpy as np

        number = writer.constant("factor", np.array(self.factor, np.float32))
        return writer.emit("Mul", [inputs[0], number])


@register("add_constant")
@dataclass(frozen=True)
class AddConstant(_WithNumber):
    """The input plus a number.

    Attributes:
        value: The number.
    """

    value: float

    def apply(self, x: Tensor) -> Tensor:
        """Return the sum."""
        return x + self.value

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write an Add."""
        import numpy as np

        number = writer.constant("value", np.array(self.value, np.float32))
        return writer.emit("Add", [inputs[0], number])
