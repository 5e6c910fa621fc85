"""Random changes to training images, vectorised over the batch, each from its own generator."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field

from hwnas.registry import PluginConfig

Images = TypeVar("Images", bound=NDArray[Any])


class AugmentConfig(PluginConfig):
    """Which random changes to make; the defaults change nothing."""

    crop_padding: int = Field(
        0,
        ge=0,
        le=64,
        description="Pad each side by this many black pixels, then crop at random; 0 is off. "
        "4 is usual for CIFAR.",
    )
    flip: bool = Field(False, description="Mirror half of the images left to right.")
    cutout: int = Field(
        0,
        ge=0,
        le=512,
        multiple_of=2,
        description="Side in pixels of the square set to the mean colour (cutout); 0 is off. "
        "16 is usual for CIFAR-10.",
    )

    @property
    def is_active(self) -> bool:
        """Whether any change is asked for."""
        return self.crop_padding > 0 or self.flip or self.cutout > 0


class CifarAugmentConfig(AugmentConfig):
    """The standard CIFAR augmentation: pad by 4 and crop, mirror; cutout off."""

    crop_padding: int = Field(4, ge=0, le=64, description="As in every data set; 4 by default.")
    flip: bool = Field(True, description="Mirror half of the images left to right.")


class Augment:
    """Applies an `AugmentConfig` to batches.

    `N` is the batch, `C` the channels, `H` and `W` height and width. Cropping and mirroring come
    before normalisation, so the padding is black; cutout comes after it, so the square is the
    mean colour (zero), as published.

    Args:
        config: What to do.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config

    def crop_and_flip(self, images: Images, generator: np.random.Generator) -> Images:
        """Shift each image by up to `crop_padding` pixels and mirror every other one, at random.

        Args:
            images: `[N, C, H, W]` before normalisation.
            generator: Where the randomness comes from.

        Returns:
            `[N, C, H, W]` in the same dtype; `images` itself is left alone.
        """
        padding = self.config.crop_padding
        if padding:
            offsets = generator.integers(0, 2 * padding + 1, size=(2, len(images)))
            images = crop(images, padding, offsets[0], offsets[1])
        if self.config.flip:
            is_flipped = generator.random(len(images)) < 0.5
            images = np.where(is_flipped[:, None, None, None], images[..., ::-1], images)  # type: ignore[assignment]
        return images

    def cut_out(
        self, images: NDArray[np.float32], generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Set one square of each image to zero (DeVries and Taylor 2017, arXiv 1708.04552).

        The centre is a pixel chosen uniformly from the whole image; what sticks out is lost, so a
        square at the border is smaller.

        Args:
            images: `[N, C, H, W]` after normalisation.
            generator: Where the randomness comes from.

        Returns:
            `[N, C, H, W]`; `images` itself is left alone.
        """
        if not self.config.cutout:
            return images
        height, width = images.shape[2:]
        rows = generator.integers(0, height, size=len(images))
        columns = generator.integers(0, width, size=len(images))
        holes = squares(height, width, self.config.cutout, rows, columns)
        return np.where(holes[:, None], np.float32(0), images)


def crop(
    images: Images, padding: int, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> Images:
    """Cut one window of the original size out of each padded image.

    Args:
        images: `[N, C, H, W]`.
        padding: Black pixels added on every side.
        rows: `[N]` top of each window in the padded image, from 0 to `2 * padding`.
        columns: `[N]` left edge of each window, from 0 to `2 * padding`.

    Returns:
        `[N, C, H, W]`, a copy.
    """
    sides = (padding, padding)
    padded = np.pad(images, ((0, 0), (0, 0), sides, sides))
    windows = sliding_window_view(padded, images.shape[2:], axis=(2, 3))
    return windows[np.arange(len(images)), :, rows, columns]  # type: ignore[return-value]


def squares(
    height: int, width: int, side: int, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Mark one square in each image.

    Args:
        height: Of the images.
        width: Of the images.
        side: Of the squares, even.
        rows: `[N]` row of each centre; the square covers `row - side/2` to `row + side/2 - 1`.
        columns: `[N]` column of each centre.

    Returns:
        `[N, H, W]`, True inside the square, clipped at the border.
    """
    half = side // 2

    def near(length: int, centres: NDArray[np.int64]) -> NDArray[np.bool_]:
        distance = np.arange(length) - centres[:, None]
        return (distance >= -half) & (distance < half)

    return near(height, rows)[:, :, None] & near(width, columns)[:, None, :]
