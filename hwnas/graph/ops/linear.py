"""The fully connected layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, WeightSpec, register

if TYPE_CHECKING:
    from torch import Tensor


@register("linear")
@dataclass(frozen=True)
class Linear(Primitive):
    """A matrix product with bias.

    Attributes:
        features: Size of the output.
    """

    features: int

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (features,).

        Raises:
            ShapeError: The input is not a vector.
        """
        if len(inputs) != 1 or len(inputs[0]) != 1:
            raise ShapeError(f"linear expects one input of shape (F,), got {inputs}")
        return (self.features,)

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `weight` [features, F] and `bias` [features]."""
        (size,) = inputs[0]
        return {
            "weight": WeightSpec((self.features, size), "he_normal", fan_in=size),
            "bias": WeightSpec((self.features,), "zeros"),
        }

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, features]`."""
        from torch.nn.functional import linear

        return linear(inputs[0], weights["weight"], weights["bias"])

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Gemm."""
        return writer.emit(
            "Gemm", [inputs[0], writer.weight("weight"), writer.weight("bias")], transB=1
        )

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Return F * features."""
        return math.prod(inputs[0]) * self.features
