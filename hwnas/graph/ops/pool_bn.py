"""Pooling with batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hwnas.graph.op import Composite, register

if TYPE_CHECKING:
    from hwnas.graph.builder import GraphBuilder, Value
    from hwnas.kernels.form import Form


@register("pool_bn")
@dataclass(frozen=True)
class PoolBn(Composite):
    """Max or average pooling → batch norm.

    DARTS follows each pooling of its search by a batch norm (Liu et al. 2019, `MixedOp` of the
    authors' code); padding is not counted by the average, as in `avg_pool`.

    Attributes:
        pool: Which pooling.
        kernel: Height and width of the window, odd.
        stride: Step in both directions.
    """

    pool: Literal["max", "avg"] = "max"
    kernel: int = 3
    stride: int = 1

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the normalised pooling."""
        pool = g.max_pool if self.pool == "max" else g.avg_pool
        x = pool(inputs[0], kernel=self.kernel, stride=self.stride)
        return g.batch_norm(x, weights="bn")

    def fused(self, inputs: int) -> Form | None:
        """Return one branch with a norm."""
        from hwnas.kernels.form import Form
        from hwnas.kernels.plan import Branch, Plan

        branch = Branch(
            "max_pool" if self.pool == "max" else "avg_pool", kernel=self.kernel, stride=self.stride
        )
        return Form(Plan((branch,)), (("bn/scale",), ("bn/shift",)), ("bn",))
