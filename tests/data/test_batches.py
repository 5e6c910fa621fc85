"""Batches and augmentation: a function of the seed, and what they claim to be."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwnas.data import Augment, AugmentConfig, Split, batches
from hwnas.data._augment import crop, squares
from hwnas.errors import UserInputError

PLAIN = ((0.0,) * 3, (1.0,) * 3)
ALL = Augment(AugmentConfig(crop_padding=2, flip=True, cutout=4))


def make_split(count: int = 50, size: int = 12) -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return Split(images, np.arange(count))


def run(split: Split, size: int = 8, seed: int = 1, **options: object) -> list:
    settings: dict = {"normalise": PLAIN, "shuffle": True, "drop_last": False, **options}
    return list(batches(split, size, seed=seed, **settings))


@pytest.mark.parametrize("augment", [None, ALL], ids=["plain", "augmented"])
def test_the_same_seed_gives_the_same_batches_and_another_seed_others(augment: object) -> None:
    split = make_split()
    one, same, other = (run(split, seed=seed, augment=augment) for seed in (5, 5, 6))
    assert all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, same, strict=True)
    )
    assert not torch.equal(one[0][1], other[0][1])


def test_augmentation_does_not_change_the_order() -> None:
    split = make_split()
    plain, augmented = run(split), run(split, augment=ALL)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(plain, augmented, strict=True))


def test_starting_in_the_middle_gives_the_same_rest() -> None:
    split = make_split()
    whole, rest = run(split, augment=ALL), run(split, augment=ALL, start=3)
    assert len(rest) == len(whole) - 3
    for a, b in zip(whole[3:], rest, strict=True):
        assert torch.equal(a[0], b[0])


def test_an_epoch_holds_every_image_once() -> None:
    split = make_split(50)
    labels = torch.cat([y for _, y in run(split)])
    assert sorted(labels.tolist()) == list(range(50))
    assert labels.tolist() != list(range(50))
    assert [len(y) for _, y in run(split)] == [8] * 6 + [2]
    assert [len(y) for _, y in run(split, drop_last=True)] == [8] * 6
    in_order = torch.cat([y for _, y in run(split, shuffle=False)])
    assert in_order.tolist() == list(range(50))


def test_batches_are_normalised_float32_in_channels_last() -> None:
    split = make_split()
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    x, y = run(split, 50, normalise=(mean, std), shuffle=False)[0]
    expected = split.images / 255.0
    expected = (expected - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-5)


def test_float_images_are_used_as_they_are() -> None:
    images = np.linspace(-3, 3, 48, dtype=np.float32).reshape(3, 1, 4, 4)
    split = Split(images, np.arange(3))
    x, _ = run(split, 3, normalise=((0.0,), (1.0,)), shuffle=False)[0]
    np.testing.assert_array_equal(x.numpy(), images)


@pytest.mark.parametrize(("size", "drop_last"), [(0, False), (51, True)])
def test_batches_that_would_train_on_nothing_are_refused_at_once(
    size: int, drop_last: bool
) -> None:
    with pytest.raises(UserInputError):
        batches(make_split(50), size, seed=0, normalise=PLAIN, shuffle=True, drop_last=drop_last)


def test_cropping_equals_the_loop_over_images() -> None:
    images = make_split(30, 9).images
    generator = np.random.default_rng(2)
    rows, columns = generator.integers(0, 7, (2, 30))
    got = crop(images, 3, rows, columns)
    for index, image in enumerate(images):
        padded = np.zeros((3, 15, 15), np.uint8)
        padded[:, 3:12, 3:12] = image
        top, left = rows[index], columns[index]
        np.testing.assert_array_equal(got[index], padded[:, top : top + 9, left : left + 9])


def test_cropping_reaches_every_offset_and_flipping_half_of_the_images() -> None:
    image = np.zeros((2000, 1, 5, 5), np.uint8)
    image[:, :, 2, 1] = 1
    augment = Augment(AugmentConfig(crop_padding=1, flip=True))
    got = augment.crop_and_flip(image, np.random.default_rng(0))
    _, _, rows, columns = np.nonzero(got)
    assert set(rows) == {1, 2, 3}
    # Unflipped the pixel is in columns 0 to 2, flipped in 4 to 2.
    assert set(columns) == {0, 1, 2, 3, 4}
    assert abs((columns < 2).sum() - (columns > 2).sum()) < 150


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    half=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_a_cutout_is_the_square_clipped_at_the_border(
    height: int, width: int, half: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    rows, columns = generator.integers(0, height, 6), generator.integers(0, width, 6)
    holes = squares(height, width, 2 * half, rows, columns)
    for hole, row, column in zip(holes, rows, columns, strict=True):
        expected = np.zeros((height, width), bool)
        expected[max(row - half, 0) : row + half, max(column - half, 0) : column + half] = True
        np.testing.assert_array_equal(hole, expected)
        assert half * half <= hole.sum() or min(height, width) < 2 * half
        assert hole.sum() <= (2 * half) ** 2


def test_a_cutout_zeroes_all_channels_and_leaves_the_rest_alone() -> None:
    images = np.random.default_rng(0).uniform(1, 2, (40, 3, 16, 16)).astype(np.float32)
    got = Augment(AugmentConfig(cutout=8)).cut_out(images, np.random.default_rng(1))
    is_hole = got == 0
    assert (is_hole == is_hole[:, :1]).all()
    assert (got[~is_hole] == images[~is_hole]).all()
    areas = is_hole[:, 0].sum(axis=(1, 2))
    assert 16 <= areas.min() <= areas.max() == 64


def test_an_augmentation_without_any_change_is_none() -> None:
    assert not AugmentConfig().is_active
    assert AugmentConfig(flip=True).is_active
