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
        entries: Number of different tokens.
        features: Size of a vector.
    """

    entries: int
    features: int

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (T, features).

        Raises:
            ShapeError: There is not one input of shape (T,).
        """
        if len(inputs) != 1 or len(inputs[0]) != 1:
            raise ShapeError(f"embedding expects tokens of shape (T,), got {inputs}")
        return (inputs[0][0], self.features)

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `weight` [entries, features]."""
        shape = (self.entries, self.features)
        return {"weight": WeightSpec(shape, "he_normal", fan_in=self.features)}

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, T, features]`."""
        from torch.nn.functional import embedding

        return embedding(inputs[0], weights["weight"])

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Gather."""
        return writer.emit("Gather", [writer.weight("weight"), inputs[0]], axis=0)
