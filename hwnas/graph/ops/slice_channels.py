"""Some of the channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, image_shape, register

if TYPE_CHECKING:
    from torch import Tensor


@register("slice_channels")
@dataclass(frozen=True)
class SliceChannels(Primitive):
    """The channels from `start` up to, but not including, `stop`.

    Attributes:
        start: The first channel.
        stop: The first one that is left out.
    """

    start: int
    stop: int

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (stop - start, H, W).

        Raises:
            ShapeError: There is not one image, or it lacks some of the channels.
        """
        channels, height, width = image_shape(self, inputs)
        if not 0 <= self.start < self.stop <= channels:
            raise ShapeError(f"channels {self.start} to {self.stop} of {channels} are no slice")
        return (self.stop - self.start, height, width)

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, stop - start, H, W]`."""
        return inputs[0][:, self.start : self.stop]

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Slice along the channels."""
        import numpy as np

        limits = [
            writer.constant(name, np.array([value], np.int64))
            for name, value in (("start", self.start), ("stop", self.stop), ("axis", 1))
        ]
        return writer.emit("Slice", [inputs[0], *limits])
