"""Dropout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, register

if TYPE_CHECKING:
    from torch import Tensor


@register("dropout")
@dataclass(frozen=True)
class Dropout(Primitive):
    """Zero each value with probability `rate` and scale the others by 1 / (1 - rate).

    Attributes:
        rate: Probability of dropping; only runs whose mode drops do it.
        channels: Whether the values of a channel are dropped together (Tompson et al. 2015).
    """

    rate: float
    channels: bool = False

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        if len(inputs) != 1:
            raise ShapeError(f"dropout expects one input, got {len(inputs)}")
        return inputs[0]

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the input with some values dropped."""
        from torch.nn.functional import dropout

        x = inputs[0]
        if self.channels and mode.dropout:
            return x * dropout(x.new_ones((*x.shape[:2], *[1] * (x.ndim - 2))), self.rate)
        return dropout(x, self.rate, training=mode.dropout)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write nothing: inference drops nothing."""
        return inputs[0]
