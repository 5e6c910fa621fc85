"""From a split to normalised tensors, in an order that only the seed decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.data._augment import Augment
from hwnas.data._dataset import ChannelValues, Split
from hwnas.errors import UserInputError

# Streams of randomness drawn from one seed: adding augmentation must not change the order.
_ORDER, _AUGMENT = 0, 1


def batches(
    split: Split,
    size: int,
    *,
    seed: int,
    normalise: tuple[ChannelValues, ChannelValues],
    augment: Augment | None = None,
    shuffle: bool,
    drop_last: bool,
    start: int = 0,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Iterate over a split once.

    Each batch is a function of (`split`, `size`, `seed`, its number): no state is kept, and
    training can go on in the middle of an epoch with `start`. Use another seed for each epoch.

    Args:
        split: The images and labels.
        size: Images in a batch.
        seed: Decides the order and the augmentation, and nothing else does.
        normalise: Mean and standard deviation of each channel, `Dataset.normalisation`.
        augment: Random changes to make; None for none.
        shuffle: Whether to permute the images; otherwise they come as stored.
        drop_last: Whether to leave out a last batch that is smaller than `size`.
        start: The number of batches to skip, without cost.

    Returns:
        Pairs `x`, `y`: `x` is `[n, C, H, W]` float32 normalised, in channels_last memory; `y` is
        `[n]` int64.

    Raises:
        UserInputError: `size` is not positive, or all images would be dropped.
    """
    if size < 1:
        raise UserInputError(f"a batch needs at least one image, not {size}")
    if drop_last and len(split) < size:
        raise UserInputError(
            f"a batch of {size} is larger than the split of {len(split)} images",
            f"use a batch size of {len(split)} or less",
        )
    return _iterate(split, size, seed, normalise, augment, shuffle, drop_last, start)


def _iterate(
    split: Split,
    size: int,
    seed: int,
    normalise: tuple[ChannelValues, ChannelValues],
    augment: Augment | None,
    shuffle: bool,
    drop_last: bool,
    start: int,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    count = len(split)
    order = np.arange(count)
    if shuffle:
        order = np.random.default_rng([seed, _ORDER]).permutation(count)
    total = count // size if drop_last else -(-count // size)
    for number in range(start, total):
        indices = order[number * size : (number + 1) * size]
        images: NDArray[Any] = split.images[indices]
        generator = np.random.default_rng([seed, _AUGMENT, number])
        if augment is not None:
            images = augment.crop_and_flip(images, generator)
        x = standardised(images, normalise)
        if augment is not None:
            x = augment.cut_out(x, generator)
        yield (
            torch.from_numpy(x).contiguous(memory_format=torch.channels_last),
            torch.from_numpy(split.labels[indices]),
        )


def standardised(
    images: NDArray[Any], normalise: tuple[ChannelValues, ChannelValues]
) -> NDArray[np.float32]:
    """Return `[N, C, H, W]` images as float32 with zero mean and unit variance a channel.

    Args:
        images: uint8 (divided by 255 first) or float32.
        normalise: Mean and standard deviation of each channel.
    """
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    mean, std = (np.asarray(values, np.float64)[:, None, None] for values in normalise)
    gain = (1.0 / (scale * std)).astype(np.float32)
    result: NDArray[np.float32] = images.astype(np.float32)
    result *= gain
    result -= (mean / std).astype(np.float32)
    return result
