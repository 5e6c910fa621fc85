"""Dropout with one mask for all steps of a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, register

if TYPE_CHECKING:
    from torch import Tensor


@register("locked_dropout")
@dataclass(frozen=True)
class LockedDropout(Primitive):
    """Drop the same features at every step of a sequence (Gal & Ghahramani 2016, "variational").

    Attributes:
        rate: Probability of dropping; only runs whose mode drops do it.
    """

    rate: float

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape.

        Raises:
            ShapeError: The input is no sequence of vectors.
        """
        if len(inputs) != 1 or len(inputs[0]) != 2:
            raise ShapeError(f"locked_dropout expects one input of shape (T, F), got {inputs}")
        return inputs[0]

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, T, F]` with some features zero and the others scaled by 1 / (1 - rate)."""
        from torch.nn.functional import dropout

        x = inputs[0]
        if not (mode.dropout and self.rate):
            return x
        return x * dropout(x.new_ones((x.shape[0], 1, x.shape[2])), self.rate)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write nothing: inference drops nothing."""
        return inputs[0]
