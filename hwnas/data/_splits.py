"""Who goes into which split: stratified, and a function of the labels and a seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwnas.data._dataset import Split
from hwnas.errors import UserInputError

Indices = NDArray[np.int64]


def shares(sizes: Sequence[int], total: int) -> list[int]:
    """Divide `total` in proportion to `sizes` (largest remainder; a tie goes to the first).

    Args:
        sizes: What is there of each class.
        total: How many to take in all, at most their sum.

    Returns:
        How many to take of each class, never more than there are; they add up to `total`.
    """
    whole = sum(sizes)
    floors = [size * total // whole for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(sizes[i] * total % whole), i))
    for index in by_remainder[: total - sum(floors)]:
        floors[index] += 1
    return floors


def stratified(
    labels: NDArray[np.int64], counts: Sequence[int], seed: int, *, source: str
) -> list[Indices]:
    """Choose disjoint parts with the class proportions of the whole.

    The parts are taken one after the other, so a part does not depend on the sizes of later ones.

    Args:
        labels: `[N]`.
        counts: The size of each part; the sum is at most `N`.
        seed: Decides the choice.
        source: What the labels belong to, for messages.

    Returns:
        The sorted indices of each part.

    Raises:
        UserInputError: There are too few images, or a part would be without a class.
    """
    if sum(counts) > len(labels):
        raise UserInputError(
            f"{source}: {sum(counts)} images are asked for, but there are {len(labels)}",
            "lower the numbers of images of the splits",
        )
    generator = np.random.default_rng(seed)
    names = np.unique(labels)
    members = [generator.permutation(np.flatnonzero(labels == name)) for name in names]
    parts = []
    for count in counts:
        taken = shares([len(each) for each in members], count)
        if 0 in taken:
            empty = names[taken.index(0)]
            raise UserInputError(
                f"{source}: a split of {count} images would have none of class {empty}",
                "add images of that class or make the split larger",
            )
        pairs = list(zip(members, taken, strict=True))
        parts.append(np.sort(np.concatenate([each[:n] for each, n in pairs])))
        members = [each[n:] for each, n in pairs]
    return parts


def divided(
    labels: NDArray[np.int64], fractions: Sequence[float], seed: int, *, source: str
) -> list[Indices]:
    """Choose one stratified part for each fraction, and one of all the rest.

    Args:
        labels: `[N]`.
        fractions: Share of the whole of each part.
        seed: Decides the choice.
        source: What the labels belong to, for messages.

    Returns:
        The sorted indices of each part, then those of the rest; together they are everything.

    Raises:
        UserInputError: The fractions leave nothing over, or a part is without a class.
    """
    counts = [round(len(labels) * fraction) for fraction in fractions]
    rest = len(labels) - sum(counts)
    if rest <= 0:
        raise UserInputError(
            f"{source}: the fractions {', '.join(map(str, fractions))} of {len(labels)} images "
            "leave nothing to train on",
            "choose a valid_fraction and a test_fraction that add up to less than 1",
        )
    return stratified(labels, [*counts, rest], seed, source=source)


def checked(split: Split, classes: int, source: str) -> Split:
    """Return `split` if its content is usable.

    Args:
        split: What was read.
        classes: The number of classes; every one must occur.
        source: Where it came from, for messages.

    Raises:
        UserInputError: A label outside the classes, a class without images, or a NaN or an
            infinite value in an image; the message names the index.
    """
    labels, images = split.labels, split.images
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise UserInputError(
            f"{source}: label {labels[outside[0]]} at index {outside[0]} is outside "
            f"0 to {classes - 1}"
        )
    empty = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if len(empty):
        raise UserInputError(f"{source}: class {empty[0]} of {classes} has no image")
    if images.dtype == np.float32:
        bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
        if len(bad):
            raise UserInputError(f"{source}: image {bad[0]} holds a NaN or an infinite value")
    return split
