"""The fully connected layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import (
    OnnxNodeWriter,
    Primitive,
    RunMode,
    Shape,
    WeightSpec,
    matrix_spec,
    register,
)

if TYPE_CHECKING:
    from torch import Tensor


@register("linear")
@dataclass(frozen=True)
class Linear(Primitive):
    """A matrix product over the last axis.

    An embedding of the same name shares its `weight`: that ties them (Press & Wolf 2017).

    Attributes:
        features: Size of the output.
        bias: Whether a constant is added.
        bound: The weight starts uniformly in ± this; None: from N(0, 2 / F).
    """

    features: int
    bias: bool = True
    bound: float | None = None

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (…, features).

        Raises:
            ShapeError: There is not one input, or it is an image.
        """
        if len(inputs) != 1 or len(inputs[0]) not in (1, 2):
            raise ShapeError(f"linear expects one input of shape (F,) or (T, F), got {inputs}")
        return (*inputs[0][:-1], self.features)

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `weight` [features, F] and `bias` [features]."""
        size = inputs[0][-1]
        weight = {"weight": matrix_spec((self.features, size), size, self.bound)}
        return weight | ({"bias": WeightSpec((self.features,), "zeros")} if self.bias else {})

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, …, features]`."""
        from torch.nn.functional import linear

        return linear(inputs[0], weights["weight"], weights["bias"] if self.bias else None)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Gemm; a sequence's vectors become its rows."""
        import numpy as np

        names = [writer.weight(each) for each in ("weight", *(["bias"] if self.bias else []))]
        *leading, size = writer.input_shapes[0]
        if not leading:
            return writer.emit("Gemm", [inputs[0], *names], transB=1)
        rows = writer.constant("rows", np.array([-1, size]))
        back = writer.constant("back", np.array([-1, *leading, self.features]))
        product = writer.emit("Gemm", [writer.emit("Reshape", [inputs[0], rows]), *names], transB=1)
        return writer.emit("Reshape", [product, back])

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Return F * features for each vector."""
        return math.prod(inputs[0]) * self.features
