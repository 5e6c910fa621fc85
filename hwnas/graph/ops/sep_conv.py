"""Separable convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.graph.op import Composite, register

if TYPE_CHECKING:
    from hwnas.graph.builder import GraphBuilder, Value
    from hwnas.kernels.form import Form


@register("sep_conv")
@dataclass(frozen=True)
class SepConv(Composite):
    """ReLU → depthwise k×k → pointwise 1×1 → batch norm, applied `stages` times.

    ENAS and NASNet apply it twice (Zoph et al. 2018, appendix A.4); the stride is the first
    stage's.

    Attributes:
        channels: Output channels.
        kernel: Height and width of the depthwise filter.
        stride: Step of the first stage.
        stages: How often the sequence is applied.
        dilation: Distance between the taps of the depthwise filter.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    stages: int = 2
    dilation: int = 1

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the last stage's batch norm."""
        x = inputs[0]
        for stage in range(self.stages):
            x = g.relu(x)
            x = g.conv(
                x,
                channels=x.shape[0],
                kernel=self.kernel,
                stride=self.stride if stage == 0 else 1,
                groups=x.shape[0],
                dilation=self.dilation,
                weights=f"stage{stage}/depthwise",
            )
            x = g.conv(x, channels=self.channels, weights=f"stage{stage}/pointwise")
            x = g.batch_norm(x, weights=f"stage{stage}/bn")
        return x

    def fused(self, inputs: int) -> Form | None:
        """Return one branch of as many stages."""
        from hwnas.kernels.form import Form
        from hwnas.kernels.plan import Branch, Plan

        branch = Branch(
            "separable",
            kernel=self.kernel,
            stride=self.stride,
            dilation=self.dilation,
            stages=self.stages,
            relu_before=True,
        )
        stages = [f"stage{stage}" for stage in range(self.stages)]
        parts = ("depthwise/weight", "pointwise/weight", "bn/scale", "bn/shift")
        weights = tuple((f"{stage}/{part}",) for stage in stages for part in parts)
        return Form(Plan((branch,)), weights, tuple(f"{stage}/bn" for stage in stages))
