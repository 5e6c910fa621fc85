"""A convolution between two 1×1 convolutions that narrow and widen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.graph.op import Composite, register

if TYPE_CHECKING:
    from hwnas.graph.builder import GraphBuilder, Value


@register("bottleneck_conv")
@dataclass(frozen=True)
class BottleneckConv(Composite):
    """ReLU → 1×1 → batch norm → ReLU → k×k → batch norm → ReLU → 1×1 → batch norm.

    The full convolutions of NASNet's and AmoebaNet's space have this form (AmoebaNet's public
    code, `_apply_operation`), unless the bottleneck would be less than one channel wide.

    Attributes:
        channels: Output channels.
        reduced: Channels in between; 0 leaves the two 1×1 convolutions out.
        kernel: Height and width of the filter.
        stride: Step of the inner convolution.
        dilation: Distance between its taps.
        factorized: Whether it is a row followed by a column (`factorized_conv`).
    """

    channels: int
    reduced: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    factorized: bool = False

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the last batch norm."""
        x = inputs[0]
        if self.reduced:
            x = g.conv_bn(x, channels=self.reduced, relu="before", weights="narrow")
        inner = {"channels": self.reduced or self.channels, "kernel": self.kernel}
        if self.factorized:
            x = g.factorized_conv(x, **inner, stride=self.stride, weights="inner")
        else:
            x = g.conv(
                g.relu(x), **inner, stride=self.stride, dilation=self.dilation, weights="inner"
            )
            x = g.batch_norm(x, weights="inner_bn")
        if self.reduced:
            x = g.conv_bn(x, channels=self.channels, relu="before", weights="widen")
        return x
