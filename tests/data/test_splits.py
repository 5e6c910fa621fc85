"""Splits: repeatable, disjoint, stratified, and the test split under lock."""

import pickle
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.data import DATASETS, Dataset, Split
from hwnas.data._splits import divided, shares, stratified
from hwnas.errors import HwnasError, UserInputError


def make_digits(**settings: object) -> Dataset:
    digits = DATASETS.get("digits")
    return digits(digits.Config.model_validate(settings))


def rows(split: Split) -> set[bytes]:
    return {image.tobytes() for image in split.images}


def test_digits_are_split_into_three_disjoint_parts_of_the_whole() -> None:
    data = make_digits()
    parts = [rows(data.train), rows(data.valid), rows(data.test)]
    assert len(data.train) + len(data.valid) + len(data.test) == 1797
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert (data.name, data.input_shape, data.classes) == ("digits", (1, 8, 8), 10)
    assert data.train.images.dtype == np.float32
    assert data.train.images.min() == 0.0
    assert data.train.images.max() == 1.0


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    one, same, other = make_digits(seed=3), make_digits(seed=3), make_digits(seed=4)
    assert np.array_equal(one.train.images, same.train.images)
    assert np.array_equal(one.test.labels, same.test.labels)
    assert rows(one.test) != rows(other.test)


def test_the_test_split_does_not_depend_on_the_size_of_valid() -> None:
    small, large = make_digits(valid_fraction=0.1), make_digits(valid_fraction=0.5)
    assert np.array_equal(small.test.images, large.test.images)


def test_every_split_has_the_class_proportions_of_the_whole() -> None:
    data = make_digits()
    whole = np.bincount(np.concatenate([data.train.labels, data.valid.labels, data.test.labels]))
    for split in (data.train, data.valid, data.test):
        exact = whole * len(split) / whole.sum()
        assert np.abs(np.bincount(split.labels) - exact).max() <= 1.0


@given(sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=12), fraction=st.floats(0.0, 1.0))
def test_shares_add_up_and_stay_within_one_of_exact(sizes: Sequence[int], fraction: float) -> None:
    total = int(sum(sizes) * fraction)
    taken = shares(sizes, total)
    assert sum(taken) == total
    for size, count in zip(sizes, taken, strict=True):
        assert 0 <= count <= size
        assert abs(count - size * total / sum(sizes)) < 1.0


def test_a_smaller_choice_is_contained_in_a_larger_one() -> None:
    labels = np.repeat(np.arange(10), 50)
    (small,) = stratified(labels, [100], 7, source="x")
    (large,) = stratified(labels, [300], 7, source="x")
    assert set(small) <= set(large)


def test_a_split_that_would_miss_a_class_is_refused() -> None:
    labels = np.array([0] * 50 + [1])
    with pytest.raises(UserInputError, match="none of class 1"):
        divided(labels, [0.2, 0.2], 0, source="x")


def test_fractions_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(UserInputError, match="nothing to train on"):
        _ = make_digits(valid_fraction=0.6, test_fraction=0.5).train


def test_the_view_for_the_search_shares_the_data_but_refuses_the_test_split() -> None:
    data = make_digits()
    _ = data.test
    view = data.without_test()
    assert view.train is data.train
    with pytest.raises(HwnasError, match="locked during a search"):
        _ = view.test
    assert len(data.test) > 0
    with pytest.raises(HwnasError, match="locked"):
        _ = pickle.loads(pickle.dumps(view)).test


def test_a_data_set_sent_to_another_process_reads_the_same_images_again() -> None:
    data = make_digits()
    train = data.train
    message = pickle.dumps(data)
    assert len(message) < 2_000
    assert np.array_equal(pickle.loads(message).train.images, train.images)


def test_the_view_for_the_last_training_trains_on_the_validation_images_too() -> None:
    data = make_digits()
    view = data.with_valid_in_train()
    assert len(view.train) == len(data.train) + len(data.valid)
    assert np.array_equal(view.train.images[-len(data.valid) :], data.valid.images)
    assert np.array_equal(view.train.labels[: len(data.train)], data.train.labels)
    assert view.normalisation == data.normalisation, "weights and model card agree on it"
    assert view.train is view.train
    shakespeare = DATASETS.get("shakespeare")
    text = shakespeare(shakespeare.Config()).with_valid_in_train()
    with pytest.raises(UserInputError, match="cannot be trained on"):
        _ = text.train


def test_normalisation_is_that_of_the_training_split() -> None:
    data = make_digits()
    (mean,), (std,) = data.normalisation
    assert mean == pytest.approx(data.train.images.mean(), rel=1e-5)
    assert std == pytest.approx(data.train.images.std(), rel=1e-5)


def test_splits_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        make_digits().train.images[0] = 0


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 1, 4, 4), np.uint8), np.zeros(3, np.int64), "2 images but 3 labels"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int64), "images must be"),
        (np.zeros((2, 1, 4, 4)), np.zeros(2, np.int64), "float64"),
        (np.zeros((2, 1, 4, 4), np.uint8), np.zeros(2, np.int32), "labels must be"),
        (np.zeros((0, 1, 4, 4), np.uint8), np.zeros(0, np.int64), "without any image"),
    ],
)
def test_a_split_with_parts_that_do_not_fit_is_refused(
    images: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(UserInputError, match=message):
        Split(images, labels)


def test_every_setting_of_every_data_set_is_described() -> None:
    for name, dataset in DATASETS.items():
        assert DATASETS.describe(name)
        for field in dataset.Config.model_fields.values():
            assert field.description
