"""The inverted bottleneck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.graph.op import Composite, register

if TYPE_CHECKING:
    from hwnas.graph.builder import GraphBuilder, Value


@register("inverted_bottleneck")
@dataclass(frozen=True)
class InvertedBottleneck(Composite):
    """1×1 convolution to more channels → depthwise k×k → 1×1 to few, without the shortcut.

    Each convolution has a batch norm; the first two an activation too, the last is linear
    (Sandler et al. 2018, section 3.3). Squeeze and excitation, if any, stands between the
    depthwise and the last convolution, and its size is a share of the *block's input* channels
    (Tan et al. 2019, MnasNet, and the authors' `mnasnet_model.py`; MobileNetV3 takes it from the
    expanded channels).

    Attributes:
        channels: Output channels.
        kernel: Height and width of the depthwise filter.
        stride: Step of the depthwise filter.
        expansion: Expanded channels / input channels; 1 has no first convolution.
        activation: Name of the op behind the first two norms.
        squeeze: Features of squeeze and excitation / input channels; 0 for none.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    expansion: int = 6
    activation: str = "relu6"
    squeeze: float = 0.0

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the last norm."""
        x = inputs[0]
        in_channels = x.shape[0]
        hidden = in_channels * self.expansion
        if self.expansion != 1:
            x = g.conv_bn(x, channels=hidden, weights="expand")
            x = getattr(g, self.activation)(x)
        x = g.conv(
            x,
            channels=hidden,
            kernel=self.kernel,
            stride=self.stride,
            groups=hidden,
            weights="depthwise/conv",
        )
        x = g.batch_norm(x, weights="depthwise/bn")
        x = getattr(g, self.activation)(x)
        if self.squeeze:
            reduced = max(1, int(in_channels * self.squeeze))
            x = g.squeeze_excite(x, reduced=reduced, weights="squeeze")
        return g.conv_bn(x, channels=self.channels, weights="project")
