"""hwnas._core.sum_latencies against numpy."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas._core import sum_latencies

TABLE = np.array([0.5, 1.25, 2.0, 4.0])


def packed(architectures: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids and offsets of a list of kernel lists."""
    ids = np.array([i for each in architectures for i in each], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, architectures)], dtype=np.int64)
    return ids, offsets


def tables_and_architectures() -> st.SearchStrategy[tuple[list[float], list[list[int]]]]:
    times = st.floats(0.0, 1e3, allow_subnormal=False)
    return st.lists(times, min_size=1, max_size=12).flatmap(
        lambda table: st.tuples(
            st.just(table),
            st.lists(st.lists(st.integers(0, len(table) - 1), max_size=23), max_size=9),
        )
    )


@given(case=tables_and_architectures())
def test_each_sum_is_that_of_the_kernels_of_its_architecture(
    case: tuple[list[float], list[list[int]]],
) -> None:
    table, architectures = np.array(case[0]), case[1]
    got = sum_latencies(table, *packed(architectures))
    expected = [table[ids].sum() for ids in architectures]
    assert got.shape == (len(architectures),)
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=0.0)


@given(case=tables_and_architectures())
def test_a_sum_has_the_same_bits_whatever_stands_beside_it(
    case: tuple[list[float], list[list[int]]],
) -> None:
    table, architectures = np.array(case[0]), case[1]
    together = sum_latencies(table, *packed(architectures))
    alone = [sum_latencies(table, *packed([ids]))[0] for ids in architectures]
    assert together.tolist() == alone


def test_an_architecture_without_kernels_takes_no_time() -> None:
    ids, offsets = packed([[], [1, 3], []])
    assert sum_latencies(TABLE, ids, offsets).tolist() == [0.0, 5.25, 0.0]


def test_no_architecture_gives_no_sum() -> None:
    empty = np.array([], dtype=np.int32)
    assert sum_latencies(TABLE, empty, np.array([0])).shape == (0,)


@pytest.mark.parametrize("bad", [4, -1, 2**31 - 1, -(2**31)])
def test_an_id_outside_the_table_is_refused_by_place_and_value(bad: int) -> None:
    ids = np.array([0, 1, 2, 3, 0, bad, bad], dtype=np.int32)
    with pytest.raises(ValueError, match=rf"kernel_ids\[5\] = {bad} .* table, which has 4 entries"):
        sum_latencies(TABLE, ids, np.array([0, 7]))


def test_any_id_is_outside_an_empty_table() -> None:
    with pytest.raises(ValueError, match=r"kernel_ids\[0\] = 0 .* 0 entries"):
        sum_latencies(np.array([]), np.array([0], dtype=np.int32), np.array([0, 1]))


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([1, 3], r"offsets\[0\] = 1 is not 0"),
        ([0, 2, 1, 3], r"offsets\[2\] = 1 is less than offsets\[1\] = 2"),
        ([0, 2], r"offsets\[1\] = 2 is not the number of kernel_ids, 3"),
        ([0, 4], r"offsets\[1\] = 4 is not the number of kernel_ids, 3"),
        ([0, -1], r"offsets\[1\] = -1 is less than"),
        ([], r"offsets is empty"),
        ([[0, 3]], r"offsets has 2 dimensions, expected 1"),
    ],
)
def test_offsets_that_do_not_cut_the_ids_into_segments_are_refused(
    offsets: list[int], message: str
) -> None:
    ids = np.array([0, 1, 2], dtype=np.int32)
    with pytest.raises(ValueError, match=message):
        sum_latencies(TABLE, ids, np.array(offsets, dtype=np.int64))


def test_ids_that_would_not_fit_int32_are_refused_rather_than_cut() -> None:
    with pytest.raises(TypeError, match="incompatible function arguments"):
        sum_latencies(TABLE, np.array([2**32], dtype=np.int64), np.array([0, 1]))  # type: ignore[arg-type]


def test_strided_operands_are_read_by_their_strides() -> None:
    table = np.repeat(TABLE, 2)[::2]
    ids = np.array([3, 0, 1, 0], dtype=np.int32)[::2]
    assert not table.flags.c_contiguous
    assert sum_latencies(table, ids, np.array([0, 2])).tolist() == [5.25]


def test_threads_that_sum_at_once_agree(rng: np.random.Generator) -> None:
    table = rng.random(100)
    ids = rng.integers(0, 100, 60_000, dtype=np.int32)
    offsets = np.arange(0, 60_001, 60, dtype=np.int64)
    expected = sum_latencies(table, ids, offsets)
    results: list[np.ndarray] = []
    workers = [
        threading.Thread(target=lambda: results.append(sum_latencies(table, ids, offsets)))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4
    assert all(np.array_equal(result, expected) for result in results)
