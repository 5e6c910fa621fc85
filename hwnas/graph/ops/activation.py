"""Activation functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, register

if TYPE_CHECKING:
    from torch import Tensor


@register("relu")
@dataclass(frozen=True)
class Relu(Primitive):
    """max(x, 0)."""

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        if len(inputs) != 1:
            raise ShapeError(f"relu expects one input, got {len(inputs)}")
        return inputs[0]

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return max(x, 0)."""
        from torch.nn.functional import relu

        return relu(inputs[0])

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Relu."""
        return writer.emit("Relu", inputs)
