"""Ops that move values and compute nothing; none of them touches the batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Op, Primitive, RunMode, Shape, register

if TYPE_CHECKING:
    from torch import Tensor


def _only(op: Op, inputs: Sequence[Shape]) -> Shape:
    if len(inputs) != 1:
        raise ShapeError(f"{op.kind} expects one input, got {len(inputs)}")
    return inputs[0]


def checked_axis(op: Op, axis: int, shape: Shape) -> int:
    """Return `axis` if the shape has it.

    Raises:
        ShapeError: It is negative or too large.
    """
    if not 0 <= axis < len(shape):
        raise ShapeError(f"{op.kind}: {shape} has no axis {axis}", "axes count from 0, no batch")
    return axis


@register("reshape")
@dataclass(frozen=True)
class Reshape(Primitive):
    """The same values in the same order, in another shape.

    Attributes:
        size: The new shape, without the batch.
    """

    size: Shape

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the new shape.

        Raises:
            ShapeError: It holds another number of values.
        """
        old = _only(self, inputs)
        if math.prod(old) != math.prod(self.size):
            raise ShapeError(f"reshape: {old} and {self.size} hold different numbers of values")
        return self.size

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, *size]`."""
        return inputs[0].reshape(-1, *self.size)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Reshape."""
        import numpy as np

        size = writer.constant("size", np.array([-1, *self.size], np.int64))
        return writer.emit("Reshape", [inputs[0], size])


@register("permute")
@dataclass(frozen=True)
class Permute(Primitive):
    """The axes in another order.

    Attributes:
        axes: For each new axis the old one, from 0, without the batch.
    """

    axes: tuple[int, ...]

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the shape in the new order.

        Raises:
            ShapeError: The axes are not those of the input.
        """
        old = _only(self, inputs)
        if sorted(self.axes) != list(range(len(old))):
            raise ShapeError(f"permute: {self.axes} is not an order of the axes of {old}")
        return tuple(old[axis] for axis in self.axes)

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the permuted tensor."""
        return inputs[0].permute(0, *(axis + 1 for axis in self.axes))

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Transpose."""
        return writer.emit("Transpose", inputs, perm=[0, *(axis + 1 for axis in self.axes)])


@register("slice")
@dataclass(frozen=True)
class Slice(Primitive):
    """A part of one axis.

    Attributes:
        axis: From 0, without the batch.
        start: First index.
        stop: Index behind the last.
        step: Distance between two.
    """

    axis: int
    start: int
    stop: int
    step: int = 1

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the shape with the shorter axis.

        Raises:
            ShapeError: The part is not within the axis.
        """
        old = _only(self, inputs)
        axis = checked_axis(self, self.axis, old)
        if not 0 <= self.start < self.stop <= old[axis] or self.step < 1:
            raise ShapeError(
                f"slice: {self.start}:{self.stop}:{self.step} is not within axis {axis} of {old}"
            )
        size = len(range(self.start, self.stop, self.step))
        return (*old[:axis], size, *old[axis + 1 :])

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the part."""
        every = [slice(None)] * (self.axis + 1)
        return inputs[0][(*every, slice(self.start, self.stop, self.step))]

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Slice."""
        import numpy as np

        numbers = {"start": self.start, "stop": self.stop, "axis": self.axis + 1, "step": self.step}
        names = [writer.constant(n, np.array([v], np.int64)) for n, v in numbers.items()]
        return writer.emit("Slice", [inputs[0], *names])


@register("expand")
@dataclass(frozen=True)
class Expand(Primitive):
    """The values repeated along axes of size 1 and along new axes in front (broadcasting).

    Attributes:
        size: The new shape, without the batch.
    """

    size: Shape

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the new shape.

        Raises:
            ShapeError: An axis that is not 1 would change.
        """
        old = _only(self, inputs)
        missing = len(self.size) - len(old)
        fits = missing >= 0 and all(
            a in (1, b) for a, b in zip(old, self.size[missing:], strict=True)
        )
        if not fits:
            raise ShapeError(f"expand: {old} cannot be repeated to {self.size}")
        return self.size

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, *size]`."""
        x = inputs[0]
        missing = len(self.size) - (x.ndim - 1)
        return x.reshape(x.shape[0], *[1] * missing, *x.shape[1:]).expand(-1, *self.size)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write an Expand, behind a Reshape where axes are added."""
        import numpy as np

        x, old = inputs[0], writer.input_shapes[0]
        missing = len(self.size) - len(old)
        if missing:
            aligned = writer.constant("aligned", np.array([-1, *[1] * missing, *old], np.int64))
            x = writer.emit("Reshape", [x, aligned])
        return writer.emit("Expand", [x, writer.constant("size", np.array([1, *self.size]))])


@register("join")
@dataclass(frozen=True)
class Join(Primitive):
    """Tensors one after the other along any axis (`concat` is that of images' channels).

    Attributes:
        axis: From 0, without the batch.
    """

    axis: int

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the shape with the longer axis.

        Raises:
            ShapeError: The inputs differ in another axis.
        """
        axis = checked_axis(self, self.axis, inputs[0]) if inputs else 0
        if len({(*shape[:axis], *shape[axis + 1 :]) for shape in inputs}) != 1:
            raise ShapeError(f"join: {tuple(inputs)} differ in more than axis {axis}")
        first = inputs[0]
        return (*first[:axis], sum(shape[axis] for shape in inputs), *first[axis + 1 :])

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the tensors one after the other."""
        import torch

        return torch.cat(list(inputs), dim=self.axis + 1)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Concat."""
        return writer.emit("Concat", inputs, axis=self.axis + 1)


@register("zero_pad")
@dataclass(frozen=True)
class ZeroPad(Primitive):
    """Zeros before and behind the values of each axis.

    Attributes:
        before: Zeros before, for each axis without the batch.
        behind: Zeros behind.
    """

    before: tuple[int, ...]
    behind: tuple[int, ...]

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the larger shape.

        Raises:
            ShapeError: There is not one number for each axis, or one is negative.
        """
        old = _only(self, inputs)
        if (
            not len(old) == len(self.before) == len(self.behind)
            or min(*self.before, *self.behind) < 0
        ):
            raise ShapeError(f"zero_pad: {self.before}, {self.behind} do not fit {old}")
        return tuple(a + b + c for a, b, c in zip(self.before, old, self.behind, strict=True))

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the padded tensor."""
        from torch.nn.functional import pad

        pairs = list(zip(self.before, self.behind, strict=True))
        return pad(inputs[0], [each for pair in reversed(pairs) for each in pair])

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Pad."""
        import numpy as np

        pads = np.array([0, *self.before, 0, *self.behind], np.int64)
        return writer.emit("Pad", [inputs[0], writer.constant("pads", pads)], mode="constant")
