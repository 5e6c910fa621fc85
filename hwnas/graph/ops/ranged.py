"""Ops whose weights are parts of larger ones that other children use other parts of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import (
    OnnxNodeWriter,
    Primitive,
    RunMode,
    Shape,
    WeightSpec,
    image_shape,
    register,
    window_shape,
)

if TYPE_CHECKING:
    from torch import Tensor

#: First channel, and the number of channels.
Range = tuple[int, int]


@register("ranged_conv")
@dataclass(frozen=True)
class RangedConv(Primitive):
    """A convolution whose filter is a part of a larger one.

    A range of output channels: ENAS' macro search by channels (`general_child.py`,
    `_conv_branch`). Ranges of input channels: the 1×1 convolution that puts its branches together
    (`final_conv`). The whole filter is the weight, so a child's parameter count is that of the
    layer that is searched; its MACs are those of the part.

    Attributes:
        channels: Output channels of the whole filter.
        outputs: The range of them that this op computes.
        in_channels: Input channels of the whole filter; None: those of the input.
        inputs: Which ranges of them the input consists of, in order; empty: all.
        kernel: Height and width of the filter, odd.
    """

    channels: int
    outputs: Range
    in_channels: int | None = None
    inputs: tuple[Range, ...] = ()
    kernel: int = 1

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (number of computed channels, H, W).

        Raises:
            ShapeError: The input is no image, or the ranges do not fit the filter or the input.
        """
        found, _, _ = image_shape(self, inputs)
        whole = found if self.in_channels is None else self.in_channels
        _check_range("ranged_conv", self.outputs, self.channels)
        for each in self.inputs:
            _check_range("ranged_conv", each, whole)
        expected = sum(count for _, count in self.inputs) if self.inputs else whole
        if found != expected:
            raise ShapeError(f"ranged_conv: {found} input channels for ranges of {expected}")
        return window_shape(self, inputs, self.outputs[1], self.kernel, 1)

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `weight` [channels, in_channels, kernel, kernel] of the whole filter."""
        whole = inputs[0][0] if self.in_channels is None else self.in_channels
        shape = (self.channels, whole, self.kernel, self.kernel)
        return {"weight": WeightSpec(shape, "he_normal", fan_in=math.prod(shape[1:]))}

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, computed channels, H, W]`."""
        import torch
        from torch.nn.functional import conv2d

        first, count = self.outputs
        weight = weights["weight"][first : first + count]
        if self.inputs:
            weight = torch.cat([weight[:, i : i + n] for i, n in self.inputs], dim=1)
        return conv2d(inputs[0], weight, padding=self.kernel // 2)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Conv with the part of the filter."""
        import numpy as np

        first, count = self.outputs
        weight = writer.array("weight")[first : first + count]
        if self.inputs:
            weight = np.concatenate([weight[:, i : i + n] for i, n in self.inputs], axis=1)
        return writer.emit(
            "Conv",
            [inputs[0], writer.constant("part", np.ascontiguousarray(weight))],
            kernel_shape=[self.kernel] * 2,
            pads=[self.kernel // 2] * 4,
        )

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Return one multiply-accumulate a tap, input channel and output value."""
        return math.prod(output) * inputs[0][0] * self.kernel**2


@register("ranged_batch_norm")
@dataclass(frozen=True)
class RangedBatchNorm(Primitive):
    """Batch norm of a range of channels (`batch_norm_with_mask` of ENAS' `common_ops.py`).

    Attributes:
        channels: Number of all channels, which have a scale and a shift.
        first: The first channel of the input.
        epsilon: Added to the variance.
    """

    channels: int
    first: int
    epsilon: float = 1e-5

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape.

        Raises:
            ShapeError: The input is no image, or the range does not fit.
        """
        shape = image_shape(self, inputs)
        _check_range("ranged_batch_norm", (self.first, shape[0]), self.channels)
        return shape

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return scale, shift and the running statistics of all channels, each `[channels]`."""
        shape = (self.channels,)
        return {
            "scale": WeightSpec(shape, "ones"),
            "shift": WeightSpec(shape, "zeros"),
            "mean": WeightSpec(shape, "zeros", is_trainable=False),
            "variance": WeightSpec(shape, "ones", is_trainable=False),
        }

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the normalised `[N, C, H, W]`; the running statistics of the range follow."""
        from torch.nn.functional import batch_norm

        part = {
            name: value[self.first : self.first + inputs[0].shape[1]]
            for name, value in weights.items()
        }
        needs_running = not mode.batch_statistics or mode.momentum > 0
        return batch_norm(
            inputs[0],
            part["mean"] if needs_running else None,
            part["variance"] if needs_running else None,
            part["scale"],
            part["shift"],
            training=mode.batch_statistics,
            momentum=mode.momentum,
            eps=self.epsilon,
        )

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a BatchNormalization with the range's values."""
        end = self.first + writer.input_shapes[0][0]
        names = [
            writer.constant(name, writer.array(name)[self.first : end])
            for name in ("scale", "shift", "mean", "variance")
        ]
        return writer.emit("BatchNormalization", [inputs[0], *names], epsilon=self.epsilon)


def _check_range(op: str, part: Range, whole: int) -> None:
    first, count = part
    if first < 0 or count < 1 or first + count > whole:
        raise ShapeError(f"{op}: {count} channels from {first} on are not within {whole}")
