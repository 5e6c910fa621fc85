"""Squeeze and excitation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.graph.op import Composite, register

if TYPE_CHECKING:
    from hwnas.graph.builder import GraphBuilder, Value


@register("squeeze_excite")
@dataclass(frozen=True)
class SqueezeExcite(Composite):
    """Each channel of an image, scaled by what all channels' means say about it.

    Global average pooling → linear → activation → linear → gate; the result multiplies the
    channels (Hu et al. 2018, section 3). Both linear layers have a bias.

    Attributes:
        reduced: Features between the linear layers.
        activation: Name of the op between them.
        gate: Name of the op that makes the factors.
    """

    reduced: int
    activation: str = "relu"
    gate: str = "sigmoid"

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the scaled image."""
        x = inputs[0]
        y = g.linear(g.global_avg_pool(x), features=self.reduced, weights="reduce")
        y = getattr(g, self.activation)(y)
        y = g.linear(y, features=x.shape[0], weights="restore")
        return g.multiply(x, getattr(g, self.gate)(y))
