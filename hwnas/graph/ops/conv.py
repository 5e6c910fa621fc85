"""Convolutions."""

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


@register("conv")
@dataclass(frozen=True)
class Conv(Primitive):
    """A two-dimensional convolution without bias; padding is dilation * (kernel - 1) // 2.

    Attributes:
        channels: Output channels.
        kernel: Height and width of the filter.
        stride: Step in both directions.
        groups: Groups of channels; the number of input channels makes it depthwise.
        dilation: Distance between the filter's taps.
    """

    channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    dilation: int = 1

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (channels, H', W').

        Raises:
            ShapeError: The input is no image, or channels do not divide into groups.
        """
        in_channels, _, _ = image_shape(self, inputs)
        if in_channels % self.groups or self.channels % self.groups:
            raise ShapeError(
                f"conv: {in_channels} input and {self.channels} output channels "
                f"do not divide into {self.groups} groups"
            )
        return window_shape(self, inputs, self.channels, self.kernel, self.stride, self.dilation)

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `weight` of shape [channels, C / groups, kernel, kernel]."""
        per_group = inputs[0][0] // self.groups
        shape = (self.channels, per_group, self.kernel, self.kernel)
        return {"weight": WeightSpec(shape, "he_normal", fan_in=math.prod(shape[1:]))}

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, channels, H', W']`."""
        from torch.nn.functional import conv2d

        pad = self.dilation * (self.kernel - 1) // 2
        return conv2d(
            inputs[0], weights["weight"], None, self.stride, pad, self.dilation, self.groups
        )

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Conv."""
        weight = writer.weight("weight")
        return emit_conv(
            writer, inputs[0], weight, self.kernel, self.stride, self.groups, self.dilation
        )

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Return one multiply-accumulate a tap, input channel of the group and output value."""
        return math.prod(output) * (inputs[0][0] // self.groups) * self.kernel**2


@register("sliced_conv")
@dataclass(frozen=True)
class SlicedConv(Primitive):
    """A 1×1 convolution whose filter is put together from one slice for each source.

    The input is a concatenation; each part brings the slice that belongs to its source, so that
    children that concatenate different sources share the slices of those they have in common
    (ENAS micro: the cell's final convolution gathers rows of one matrix).

    Attributes:
        channels: Output channels.
        sources: Names of the concatenated parts, all of the same number of channels.
    """

    channels: int
    sources: tuple[str, ...]

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (channels, H, W).

        Raises:
            ShapeError: The input channels do not divide into the sources.
        """
        in_channels, height, width = image_shape(self, inputs)
        if in_channels % len(self.sources):
            raise ShapeError(
                f"sliced_conv: {in_channels} channels do not divide into {self.sources}"
            )
        return (self.channels, height, width)

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return one [channels, C / sources, 1, 1] for each source."""
        in_channels = inputs[0][0]
        shape = (self.channels, in_channels // len(self.sources), 1, 1)
        return {name: WeightSpec(shape, "he_normal", fan_in=in_channels) for name in self.sources}

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, channels, H, W]`."""
        import torch
        from torch.nn.functional import conv2d

        return conv2d(inputs[0], torch.cat([weights[name] for name in self.sources], dim=1))

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Conv whose filter is the concatenation of the slices."""
        import numpy as np

        weight = np.concatenate([writer.array(name) for name in self.sources], axis=1)
        return emit_conv(writer, inputs[0], writer.constant("weight", weight), 1, 1, 1)

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Return one multiply-accumulate for each pair of input channel and output value."""
        return math.prod(output) * inputs[0][0]


def emit_conv(
    writer: OnnxNodeWriter,
    x: str,
    weight: str,
    kernel: int,
    stride: int,
    groups: int,
    dilation: int = 1,
) -> str:
    """Write an ONNX Conv without bias and return its output's name."""
    return writer.emit(
        "Conv",
        [x, weight],
        kernel_shape=[kernel, kernel],
        strides=[stride, stride],
        pads=[dilation * (kernel - 1) // 2] * 4,
        group=groups,
        **({"dilations": [dilation, dilation]} if dilation > 1 else {}),
    )
