"""Zeros around an image, so that images of different sizes can be put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, image_shape, register

if TYPE_CHECKING:
    from torch import Tensor


@register("pad_to")
@dataclass(frozen=True)
class PadTo(Primitive):
    """Pad an image with zeros to a size, as evenly as possible; an odd one goes below and right.

    Attributes:
        size: Height and width of the result.
    """

    size: tuple[int, int]

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (C, *size).

        Raises:
            ShapeError: The input is no image, or larger than the result.
        """
        channels, height, width = image_shape(self, inputs)
        if height > self.size[0] or width > self.size[1]:
            raise ShapeError(f"pad_to: an image of {height}×{width} does not fit into {self.size}")
        return (channels, *self.size)

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, C, *size]`."""
        from torch.nn.functional import pad

        (top, bottom), (left, right) = self._zeros(tuple(inputs[0].shape[2:]))
        return pad(inputs[0], (left, right, top, bottom))

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Pad."""
        import numpy as np

        (top, bottom), (left, right) = self._zeros(writer.input_shapes[0][1:])
        pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        return writer.emit("Pad", [inputs[0], writer.constant("pads", pads)])

    def _zeros(self, found: Sequence[int]) -> list[tuple[int, int]]:
        """Return how many rows come above and below, and columns left and right."""
        missing = [wanted - size for wanted, size in zip(self.size, found, strict=True)]
        return [(each // 2, each - each // 2) for each in missing]
