"""The embedding of tokens."""

from __future__ import annotations

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


@register("embedding")
@dataclass(frozen=True)
class Embedding(Primitive):
    """Replace each token by its row of a matrix.

    A `linear` of the same weight name shares the matrix (tied weights, Press & Wolf 2017); the
    rows are dropped here only.

    Attributes:
        vocabulary: V, the number of different tokens.
        width: E, the size of a row.
        dropout: Probability that a word is dropped in all its places; the others are scaled by
            1 / (1 - dropout) (Gal & Ghahramani 2016; AWD-LSTM, Merity et al. 2018).
        bound: Rows start uniformly in ± this; None: from N(0, 2 / E).
    """

    vocabulary: int
    width: int
    dropout: float = 0.0
    bound: float | None = None

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (T, E).

        Raises:
            ShapeError: The input is no sequence of tokens.
        """
        if len(inputs) != 1 or len(inputs[0]) != 1:
            raise ShapeError(f"embedding expects tokens of shape (T,), got {inputs}")
        return (inputs[0][0], self.width)

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `weight` [V, E]."""
        return {"weight": matrix_spec((self.vocabulary, self.width), self.width, self.bound)}

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, T, E]`."""
        from torch.nn.functional import dropout, embedding

        tokens, weight = inputs[0].long(), weights["weight"]
        rows = embedding(tokens, weight)
        if not (mode.dropout and self.dropout):
            return rows
        kept = dropout(weight.new_ones(self.vocabulary), self.dropout)
        return rows * kept[tokens].unsqueeze(-1)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Gather."""
        return writer.emit("Gather", [writer.weight("weight"), inputs[0]], axis=0)
