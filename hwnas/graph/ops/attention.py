"""Matrix products of two tensors, and attention made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import Composite, OnnxNodeWriter, Primitive, RunMode, Shape, register

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.graph.builder import GraphBuilder, Value


@register("matmul")
@dataclass(frozen=True)
class MatMul(Primitive):
    """The matrix product of the last two axes of two inputs."""

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (…, M, N) for (…, M, K) and (…, K, N).

        Raises:
            ShapeError: The inputs do not fit; nothing is broadcast.
        """
        if len(inputs) != 2 or any(len(shape) < 2 for shape in inputs):
            raise ShapeError(f"matmul expects two inputs with two axes or more, got {inputs}")
        a, b = inputs
        if a[:-2] != b[:-2] or a[-1] != b[-2]:
            raise ShapeError(f"matmul: {a} and {b} do not fit")
        return (*a[:-1], b[-1])

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the product."""
        return inputs[0] @ inputs[1]

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a MatMul."""
        return writer.emit("MatMul", inputs)

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Return K for each output value."""
        return math.prod(output) * inputs[0][-1]


@register("attention")
@dataclass(frozen=True)
class Attention(Composite):
    """softmax(q · kᵀ · scale) · v of (heads, T, D) inputs (Vaswani et al. 2017, eq. 1).

    Attributes:
        scale: Factor of the scores; None: 1 / √D.
        dropout: Share of the attention that training drops.
    """

    scale: float | None = None
    dropout: float = 0.0

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Add two products around a softmax.

        Raises:
            ShapeError: There are not three inputs.
        """
        if len(inputs) != 3:
            raise ShapeError(f"attention expects queries, keys and values, got {len(inputs)}")
        query, key, value = inputs
        last = len(key.shape) - 1
        factor = query.shape[-1] ** -0.5 if self.scale is None else self.scale
        turned = g.permute(key, axes=(*range(last - 1), last, last - 1))
        scores = g.scale(g.matmul(query, turned), factor=factor)
        shares = g.softmax(scores, axis=last)
        if self.dropout:
            shares = g.dropout(shares, rate=self.dropout)
        return g.matmul(shares, value)
