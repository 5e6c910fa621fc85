"""Ops that put several tensors together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, register

if TYPE_CHECKING:
    from torch import Tensor


@register("sum")
@dataclass(frozen=True)
class Sum(Primitive):
    """The sum of two tensors of one shape (`GraphBuilder.add` is the general method)."""

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the inputs' shape.

        Raises:
            ShapeError: There are not two inputs of one shape.
        """
        if len(inputs) != 2 or inputs[0] != inputs[1]:
            raise ShapeError(f"sum expects two inputs of one shape, got {inputs}")
        return inputs[0]

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the sum."""
        return inputs[0] + inputs[1]

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write an Add."""
        return writer.emit("Add", inputs)


@register("concat")
@dataclass(frozen=True)
class Concat(Primitive):
    """Images of one size, put one after the other along the channels."""

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (sum of C, H, W).

        Raises:
            ShapeError: The inputs are not images of one size.
        """
        if len({shape[1:] for shape in inputs}) != 1 or any(len(shape) != 3 for shape in inputs):
            raise ShapeError(f"concat expects images of one size, got {inputs}")
        return (sum(shape[0] for shape in inputs), *inputs[0][1:])

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, sum of C, H, W]`."""
        import torch

        return torch.cat(list(inputs), dim=1)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Concat."""
        return writer.emit("Concat", inputs, axis=1)
