"""Convolution with batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hwnas.graph.op import Composite, Size, register

if TYPE_CHECKING:
    from hwnas.graph.builder import GraphBuilder, Value
    from hwnas.kernels.form import Form


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
    kernel: Size = 1
    stride: Size = 1
    relu: Literal["before", "after", "none"] = "none"

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the normalised convolution."""
        x = g.relu(inputs[0]) if self.relu == "before" else inputs[0]
        x = g.conv(
            x, channels=self.channels, kernel=self.kernel, stride=self.stride, weights="conv"
        )
        x = g.batch_norm(x, weights="bn")
        return g.relu(x) if self.relu == "after" else x

    def fused(self, inputs: int) -> Form | None:
        """Return one branch of one convolution; the kernels take square filters only."""
        if not (isinstance(self.kernel, int) and isinstance(self.stride, int)):
            return None
        from hwnas.kernels.form import Form
        from hwnas.kernels.plan import Branch, Plan

        branch = Branch(
            "conv",
            kernel=self.kernel,
            stride=self.stride,
            relu_before=self.relu == "before",
            relu_after=self.relu == "after",
        )
        weights = (("conv/weight",), ("bn/scale",), ("bn/shift",))
        return Form(Plan((branch,)), weights, ("bn",))


@register("concat_conv_bn")
@dataclass(frozen=True)
class ConcatConvBn(Composite):
    """ReLU → concatenation → 1×1 convolution → batch norm: what makes a cell's output.

    The filter is put together from one slice for each source (`sliced_conv`).

    Attributes:
        channels: Output channels.
        sources: Name of each input, all of the same number of channels.
    """

    channels: int
    sources: tuple[str, ...]

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the normalised convolution."""
        x = g.relu(g.concat(*inputs) if len(inputs) > 1 else inputs[0])
        x = g.sliced_conv(x, channels=self.channels, sources=self.sources, weights="conv")
        return g.batch_norm(x, weights="bn")

    def fused(self, inputs: int) -> Form | None:
        """Return one branch that reads all inputs; no concatenation is written."""
        from hwnas.kernels.form import Form
        from hwnas.kernels.plan import Branch, Plan

        branch = Branch("conv", inputs=tuple(range(inputs)), relu_before=True)
        slices = tuple(f"conv/{source}" for source in self.sources)
        return Form(Plan((branch,)), (slices, ("bn/scale",), ("bn/shift",)), ("bn",))
