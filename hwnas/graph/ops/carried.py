"""A state that one window of a sequence hands to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, register

if TYPE_CHECKING:
    from torch import Tensor


@register("carried")
@dataclass(frozen=True)
class Carried(Primitive):
    """What the runner carries over from the window before, by name; zeros at the first one.

    Its input only says how large the batch is. The exported network starts from zeros.

    Attributes:
        name: Under which the runner finds it (`hwnas.supernet.run.run_all`).
        size: Its shape, without the batch.
    """

    name: str
    size: Shape

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the state's shape.

        Raises:
            ShapeError: There is not one input.
        """
        if len(inputs) != 1:
            raise ShapeError(f"carried expects one input, got {len(inputs)}")
        return self.size

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return zeros; the runner replaces them where it carries something."""
        import torch

        x = inputs[0]
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return x.new_zeros((x.shape[0], *self.size), dtype=dtype)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a ConstantOfShape."""
        import numpy as np

        batch = writer.emit("Shape", [inputs[0]], start=0, end=1)
        size = writer.constant("size", np.array(self.size, np.int64))
        return writer.emit("ConstantOfShape", [writer.emit("Concat", [batch, size], axis=0)])
