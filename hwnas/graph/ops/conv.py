"""Convolutions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import (
    OnnxNodeWriter,
    Padding,
    Primitive,
    RunMode,
    Shape,
    Size,
    WeightSpec,
    both,
    image_shape,
    register,
    window_padding,
    window_shape,
)

if TYPE_CHECKING:
    from torch import Tensor


@register("conv")
@dataclass(frozen=True)
class Conv(Primitive):
    """A two-dimensional convolution.

    Attributes:
        channels: Output channels.
        kernel: Height and width of the filter.
        stride: Step in both directions.
        groups: Groups of channels; the number of input channels makes it depthwise.
        dilation: Distance between the filter's taps.
        bias: Whether a constant is added to each channel; a batch norm behind makes it useless.
        padding: ``same`` adds dilation * (kernel - 1) // 2 zeros on each side.
    """

    channels: int
    kernel: Size = 1
    stride: Size = 1
    groups: int = 1
    dilation: int = 1
    bias: bool = False
    padding: Padding = "same"

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
        return window_shape(
            self,
            inputs,
            self.channels,
            self.kernel,
            self.stride,
            self.dilation,
            self.padding,
        )

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `weight` [channels, C / groups, kernel, kernel], and `bias` [channels]."""
        shape = (self.channels, inputs[0][0] // self.groups, *both(self.kernel))
        weight = {"weight": WeightSpec(shape, "he_normal", fan_in=math.prod(shape[1:]))}
        return weight | ({"bias": WeightSpec((self.channels,), "zeros")} if self.bias else {})

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, channels, H', W']`."""
        from torch.nn.functional import conv2d

        return conv2d(
            inputs[0],
            weights["weight"],
            weights["bias"] if self.bias else None,
            self.stride,
            window_padding(self.kernel, self.dilation, self.padding),
            self.dilation,
            self.groups,
        )

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Conv."""
        pads = window_padding(self.kernel, self.dilation, self.padding)
        names = [writer.weight(each) for each in ("weight", *(["bias"] if self.bias else []))]
        dilated = {"dilations": [self.dilation] * 2} if self.dilation > 1 else {}
        return writer.emit(
            "Conv",
            [inputs[0], *names],
            kernel_shape=list(both(self.kernel)),
            strides=list(both(self.stride)),
            pads=[*pads, *pads],
            group=self.groups,
            **dilated,
        )

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Return one multiply-accumulate a tap, input channel of the group and output value."""
        taps = math.prod(both(self.kernel))
        return math.prod(output) * (inputs[0][0] // self.groups) * taps


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
        name = writer.constant("weight", weight)
        ones, none = [1, 1], [0, 0, 0, 0]
        return writer.emit(
            "Conv", [inputs[0], name], kernel_shape=ones, strides=ones, pads=none, group=1
        )

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Return one multiply-accumulate for each pair of input channel and output value."""
        return math.prod(output) * inputs[0][0]
