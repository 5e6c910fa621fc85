"""Convolution with batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hwnas.graph.op import Composite, register

if TYPE_CHECKING:
    from hwnas.graph.builder import GraphBuilder, Value


@register("conv_bn")
@dataclass(frozen=True)
class ConvBn(Composite):
    """Convolution → batch norm, with a ReLU before, after, or nowhere.

    Attributes:
        channels: Output channels.
        kernel: Height and width of the filter.
        stride: Step in both directions.
        relu: Where the ReLU is.
    """

    channels: int
    kernel: int = 1
    stride: int = 1
    relu: Literal["before", "after", "none"] = "none"

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the normalised convolution."""
        x = g.relu(inputs[0]) if self.relu == "before" else inputs[0]
        x = g.conv(
            x, channels=self.channels, kernel=self.kernel, stride=self.stride, weights="conv"
        )
        x = g.batch_norm(x, weights="bn")
        return g.relu(x) if self.relu == "after" else x
