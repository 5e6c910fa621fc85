"""The auxiliary classifier that helps to train deep networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.graph.op import Composite, register

if TYPE_CHECKING:
    from hwnas.graph.builder import GraphBuilder, Value


@register("auxiliary_head")
@dataclass(frozen=True)
class AuxiliaryHead(Composite):
    """A second classifier on an inner layer; its loss is added in training (Szegedy et al. 2015).

    ReLU → 5×5 average pooling, stride 3, without padding → 1×1 convolution → batch norm → ReLU →
    convolution over all that is left → batch norm → ReLU → linear: the form of NASNet, ENAS and
    DARTS. Where the image is smaller than 5×5, the pooling takes all of it.

    Attributes:
        classes: Number of classes.
        reduced: Channels of the 1×1 convolution.
        features: Channels of the last convolution.
    """

    classes: int
    reduced: int = 128
    features: int = 768

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the auxiliary logits."""
        x = g.relu(inputs[0])
        window = min(5, *x.shape[1:])
        x = g.avg_pool(x, kernel=window, stride=3, padding="valid")
        x = g.conv(x, channels=self.reduced, weights="reduce/conv")
        x = g.relu(g.batch_norm(x, weights="reduce/bn"))
        size = (x.shape[1], x.shape[2])
        x = g.conv(x, channels=self.features, kernel=size, padding="valid", weights="full/conv")
        x = g.relu(g.batch_norm(x, weights="full/bn"))
        return g.linear(g.global_avg_pool(x), features=self.classes, weights="linear")
