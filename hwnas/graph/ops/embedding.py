"""Vectors for tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, WeightSpec, register

if TYPE_CHECKING:
    from torch import Tensor


@register("embedding")
@dataclass(frozen=True)
class Embedding(Primitive):
    """The row of a table for each token.

    A linear layer of the same name shares its `weight`: that ties them (Press & Wolf 2017).

    Attributes:
        vocabulary: Number of different tokens.
        width: Size of a vector.
    """

    vocabulary: int
    width: int

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (T, width).

        Raises:
            ShapeError: There is not one input of shape (T,).
        """
        if len(inputs) != 1 or len(inputs[0]) != 1:
            raise ShapeError(f"embedding expects tokens of shape (T,), got {inputs}")
        return (inputs[0][0], self.width)

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `weight` [vocabulary, width]."""
        shape = (self.vocabulary, self.width)
        return {"weight": WeightSpec(shape, "he_normal", fan_in=self.width)}

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, T, width]`."""
        from torch.nn.functional import embedding

        return embedding(inputs[0], weights["weight"])

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Gather."""
        return writer.emit("Gather", [writer.weight("weight"), inputs[0]], axis=0)
