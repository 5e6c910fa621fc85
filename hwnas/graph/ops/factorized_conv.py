"""A square filter taken apart into a row and a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.graph.op import Composite, register

if TYPE_CHECKING:
    from hwnas.graph.builder import GraphBuilder, Value


@register("factorized_conv")
@dataclass(frozen=True)
class FactorizedConv(Composite):
    """ReLU → 1×k convolution → (batch norm → ReLU →) k×1 convolution → batch norm.

    The first convolution strides along the width, the second along the height. With the inner norm
    it is the op of NASNet's and AmoebaNet's space ("1×7 then 7×1"; AmoebaNet's public code,
    `_apply_conv_operation`), without it `conv_7x1_1x7` of DARTS' code.

    Attributes:
        channels: Output channels, and those in between.
        kernel: Length of the row and of the column.
        stride: Step in both directions.
        inner_norm: Whether a batch norm and a ReLU stand between the two.
    """

    channels: int
    kernel: int = 7
    stride: int = 1
    inner_norm: bool = True

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the normalised second convolution."""
        x = g.conv(
            g.relu(inputs[0]),
            channels=self.channels,
            kernel=(1, self.kernel),
            stride=(1, self.stride),
            weights="row",
        )
        if self.inner_norm:
            x = g.relu(g.batch_norm(x, weights="row_bn"))
        x = g.conv(
            x,
            channels=self.channels,
            kernel=(self.kernel, 1),
            stride=(self.stride, 1),
            weights="column",
        )
        return g.batch_norm(x, weights="column_bn")
