"""Tensors that are the same for every example: learned ones and constants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, WeightSpec, register

if TYPE_CHECKING:
    from torch import Tensor

#: N(0, 2 / 5000) has a standard deviation of 0.02: that of BERT's and ViT's embeddings.
_FAN_IN = 5000


@register("parameter")
@dataclass(frozen=True)
class Parameter(Primitive):
    """A learned tensor: a class token, a position embedding, a scale of channels.

    The input only says how large the batch is.

    Attributes:
        size: Its shape; every example gets the same values.
        init: ``zeros``, ``ones``, or ``normal``: N(0, 0.02²).
    """

    size: Shape
    init: Literal["zeros", "ones", "normal"] = "normal"

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the parameter's shape.

        Raises:
            ShapeError: There is not one input.
        """
        if len(inputs) != 1:
            raise ShapeError(f"parameter expects one input, got {len(inputs)}")
        return self.size

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `value`."""
        if self.init == "normal":
            return {"value": WeightSpec(self.size, "he_normal", fan_in=_FAN_IN)}
        return {"value": WeightSpec(self.size, self.init)}

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, *size]`, a view of the weight."""
        return weights["value"].expand(inputs[0].shape[0], *self.size)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write an Expand to the batch; runtimes fold it where the batch is known."""
        return _repeated(writer, inputs[0], writer.weight("value"), self.size)


@register("constant")
@dataclass(frozen=True)
class Constant(Primitive):
    """A tensor that is not learned, such as a fixed position code.

    The input only says how large the batch is.

    Attributes:
        size: Its shape; every example gets the same values.
        values: The values in order, the last axis fastest.
    """

    size: Shape
    values: tuple[float, ...]

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the constant's shape.

        Raises:
            ShapeError: There is not one input, or the values do not fill the shape.
        """
        if len(inputs) != 1 or math.prod(self.size) != len(self.values):
            raise ShapeError(
                f"constant: {len(self.values)} values, size {self.size}, {len(inputs)} inputs"
            )
        return self.size

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, *size]`."""
        import torch

        x = inputs[0]
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        value = x.new_tensor(self.values, dtype=dtype).reshape(self.size)
        return value.expand(x.shape[0], *self.size)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write an Expand to the batch."""
        import numpy as np

        value = np.array(self.values, np.float32).reshape(self.size)
        return _repeated(writer, inputs[0], writer.constant("value", value), self.size)


def _repeated(writer: OnnxNodeWriter, x: str, value: str, size: Shape) -> str:
    import numpy as np

    batch = writer.emit("Shape", [x], start=0, end=1)
    rest = writer.constant("size", np.array(size, np.int64))
    return writer.emit("Expand", [value, writer.emit("Concat", [batch, rest], axis=0)])
