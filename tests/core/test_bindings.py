"""What the bindings refuse: a caller's slip must not write into somebody else's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hwnas import _core

#: images, channels, height, width, out_height, out_width, kernel, stride, dilation
WINDOW = (1, 4, 6, 6, 6, 6, 3, 1, 1)
#: batch, height, width, channels, outputs, kernel, stride, dilation
SIZES = (1, 6, 6, 4, 4, 3, 1, 1)
MEMORY = torch.ones(4096)
AT = MEMORY.data_ptr()
UP = (AT, AT, None, AT, 1.0, False)
NORM = (AT, AT, AT, 1e-5, True)


def changed(operands: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*operands[:place], value, *operands[place + 1 :])


#: Each function with operands that it takes.
CALLS: dict[str, tuple[Any, ...]] = {
    "separable": (SIZES, AT, NORM, AT, AT, AT, AT, 1),
    "separable_backward": (SIZES, UP, AT, NORM, AT, AT, AT, False, AT, AT, AT, 1),
    "pool": (WINDOW, AT, AT, 0, 0, 1),
    "pool_backward": (WINDOW, UP, 0, AT, False, 1),
    "dense": (WINDOW, AT, False, 4, AT, AT, 0, 1),
    "dense_backward": (WINDOW, AT, False, 4, AT, UP, AT, AT, False, 1),
    "pointwise": ([(AT, 4, 0, False)], False, 36, 4, AT, AT, 0, 1),
    "pointwise_backward": ([(AT, 4, AT, False)], False, 36, 4, AT, UP, AT, 1),
    "sampled": (changed(WINDOW, 6, 1), AT, False, [(AT, 0, 4, 0)], AT, 0, 1),
    "combine": ([AT, AT], [NORM, None], [1.0, 2.0], False, 36, 4, AT, 1),
    "combine_backward": (AT, [AT, 0], [NORM, None], False, 36, 4, AT, 1),
    "accumulate": (UP, 36, 4, AT, False, 1),
    "rnn_cell": ((AT,) * 4, [], (AT,) * 3, (1, 1, 1, 1), [[]], [[0]], [[]], False, 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_threads_are_at_least_one(name: str) -> None:
    call = CALLS[name]
    with pytest.raises(ValueError, match="threads is 0, not from 1"):
        getattr(_core, name)(*call[:-1], 0)


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("separable", 1, 0, "x is null"),
        ("separable", 2, changed(NORM, 0, 0), "statistics is null"),
        ("separable", 2, NORM[:3], "3 parts of a norm where 5"),
        ("separable", 4, 0, "pointwise is null"),
        ("separable", 0, changed(SIZES, 3, 0), "channels is 0"),
        ("separable", 0, changed(SIZES, 5, 17), "kernel is 17, not from 1 to 15"),
        ("separable", 0, changed(SIZES, 5, 4), "kernel is even"),
        ("separable", 0, changed(SIZES, 6, 0), "stride is 0"),
        ("separable", 0, changed(SIZES, 1, 2**40), "height is 1099511627776"),
        ("separable_backward", 1, UP[:4], "4 parts of an upstream gradient where 6"),
        ("separable_backward", 1, changed(UP, 0, 0), "gradient is null"),
        ("separable_backward", 1, (AT, 0, NORM, AT, 1.0, False), "z is null"),
        ("separable_backward", 1, (AT, AT, NORM, 0, 1.0, False), "sums is null"),
        ("separable_backward", 10, 0, "sums is null"),
        ("pool", 0, WINDOW[:8], "8 sizes of a window where 9"),
        ("pool", 0, changed(WINDOW, 0, -1), "images is -1"),
        ("pool", 0, changed(WINDOW, 4, 7), "out_height is 7, not from 6 to 6"),
        ("pool", 0, changed(WINDOW, 5, 3), "out_width is 3"),
        ("pool", 0, changed(WINDOW, 6, 17), "kernel is 17"),
        ("pool", 0, changed(WINDOW, 7, 0), "stride is 0"),
        ("pool", 2, 0, "z is null"),
        ("pool_backward", 3, 0, "dx is null"),
        ("dense", 3, 0, "columns is 0"),
        ("dense", 4, 0, "weight is null"),
        ("dense_backward", 6, 0, "dweight is null"),
        ("pointwise", 0, [], "inputs is 0"),
        ("pointwise", 0, [(0, 4, 0, False)], "x is null"),
        ("pointwise", 0, [(AT, 0, 0, False)], "channels is 0"),
        ("pointwise", 2, -1, "pixels is -1"),
        ("pointwise", 5, 0, "z is null"),
        ("sampled", 3, [(AT, 0, 2, 0)] * 3, "parts is 3, not from 1 to 2"),
        ("sampled", 3, [(0, 0, 4, 0)], "weight is null"),
        ("combine", 0, [AT, 0], "z is null"),
        ("combine", 1, [NORM], "1 norms where 2"),
        ("combine", 2, [1.0], "1 gates where 2"),
        ("combine_backward", 6, 0, "sums is null"),
        ("accumulate", 3, 0, "dx is null"),
        ("rnn_cell", 0, (AT,) * 3, "3 operands where 4"),
        ("rnn_cell", 2, (AT,) * 2, "2 results where 3"),
        ("rnn_cell", 3, (1, -1, 1, 1), "batch is -1"),
        ("rnn_cell", 3, (1, 1, 1, 0), "hidden is 0"),
        ("rnn_cell", 5, [[4]], "activation"),
    ],
)
def test_operands_that_cannot_be_are_refused(
    name: str, place: int, value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(_core, name)(*changed(CALLS[name], place, value))


@pytest.mark.parametrize(
    "call",
    [
        lambda: _core.pool(changed(WINDOW, 0, 0), 0, 0, 0, 0, 1),
        lambda: _core.combine([0], [None], [1.0], False, 0, 4, 0, 1),
        lambda: _core.pointwise([(0, 4, 0, False)], False, 0, 4, AT, 0, 0, 1),
    ],
)
def test_an_empty_batch_has_no_address(call: Callable[[], None]) -> None:
    call()


@pytest.mark.parametrize("shape", [(2**40, 2**40), (2**62, 1), (2**31, 2**31, 2)])
def test_a_tensor_larger_than_addresses_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(MemoryError):
        _core.arena_tensor(shape)
