"""Zeros around an image, so that images of different sizes can be put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import Composite, image_shape, register

if TYPE_CHECKING:
    from hwnas.graph.builder import GraphBuilder, Value


@register("pad_to")
@dataclass(frozen=True)
class PadTo(Composite):
    """Pad an image with zeros to a size, as evenly as possible; an odd one goes below and right.

    Attributes:
        size: Height and width of the result.
    """

    size: tuple[int, int]

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the padded image.

        Raises:
            ShapeError: The input is no image, or larger than the result.
        """
        _, height, width = image_shape(self, [each.shape for each in inputs])
        if height > self.size[0] or width > self.size[1]:
            raise ShapeError(f"pad_to: an image of {height}×{width} does not fit into {self.size}")
        missing = [self.size[0] - height, self.size[1] - width]
        before = [each // 2 for each in missing]
        behind = [each - each // 2 for each in missing]
        return g.zero_pad(inputs[0], before=(0, *before), behind=(0, *behind))
