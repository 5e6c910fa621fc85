"""The classification head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.graph.op import Composite, register

if TYPE_CHECKING:
    from hwnas.graph.builder import GraphBuilder, Value


@register("classifier")
@dataclass(frozen=True)
class Classifier(Composite):
    """(ReLU →) global average pooling → (dropout →) linear.

    Attributes:
        classes: Number of classes.
        relu: Whether a ReLU comes first.
        dropout: Probability of dropping a feature before the linear layer.
    """

    classes: int
    relu: bool = False
    dropout: float = 0.0

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the logits."""
        x = g.relu(inputs[0]) if self.relu else inputs[0]
        x = g.global_avg_pool(x)
        if self.dropout:
            x = g.dropout(x, rate=self.dropout)
        return g.linear(x, features=self.classes, weights="linear")
