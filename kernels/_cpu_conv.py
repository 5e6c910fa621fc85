"""`conv`, `reduction` and their gradients of the CPU backend, on `hwnas._core`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from hwnas import _core
from hwnas.kernels import _arena
from hwnas.kernels._cpu_window import pack_window
from hwnas.kernels.backend import Window

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.backend import Upstream


def conv(
    xs: Sequence[Tensor],
    relu: bool,
    window: Window,
    weight: Tensor,
    statistics: bool,
) -> tuple[Tensor, Tensor | None]:
    """See `Backend.conv`."""
    if len(xs) > 1 and window.stride > 1:
        xs = [_concatenated(xs)]
    n, _, height, width = xs[0].shape
    columns = weight.shape[0]
    z = _arena.image(n, columns, window.size(height), window.size(width))
    found = _arena.flat(2, columns) if statistics else None
    weight = weight.contiguous()
    to = (z.data_ptr(), 0 if found is None else found.data_ptr(), torch.get_num_threads())
    if window.kernel == 1 and window.stride == 1:
        inputs = [(x.data_ptr(), x.shape[1], 0, False) for x in xs]
        _core.pointwise(inputs, relu, n * height * width, columns, weight.data_ptr(), *to)
    elif window.kernel == 1:
        parts = [(weight.data_ptr(), 0, columns, 0)]
        _core.sampled(pack_window(window, xs[0]), xs[0].data_ptr(), relu, parts, *to)
    else:
        packed = pack_window(window, xs[0])
        _core.dense(packed, xs[0].data_ptr(), relu, columns, weight.data_ptr(), *to)
    return z, found


def conv_backward(
    up: Upstream,
    xs: Sequence[Tensor],
    relu: bool,
    window: Window,
    weight: Tensor,
    dxs: Sequence[Tensor | None],
    accumulate: Sequence[bool],
) -> Tensor:
    """See `Backend.conv_backward`."""
    if len(xs) > 1 and window.stride > 1:
        return _concatenated_backward(up, xs, relu, window, weight, dxs, accumulate)
    n, _, height, width = xs[0].shape
    columns = weight.shape[0]
    weight = weight.contiguous()
    dweight = torch.empty_like(weight)
    threads = torch.get_num_threads()
    packed_up = _arena.pack_upstream(up)
    if window.kernel == 1 and window.stride == 1:
        inputs = [
            (x.data_ptr(), x.shape[1], _address(dx), is_added)
            for x, dx, is_added in zip(xs, dxs, accumulate, strict=True)
        ]
        _core.pointwise_backward(
            inputs,
            relu,
            n * height * width,
            columns,
            weight.data_ptr(),
            packed_up,
            dweight.data_ptr(),
            threads,
        )
        return dweight
    packed = pack_window(window, xs[0])
    x, dx = xs[0].data_ptr(), _address(dxs[0])
    if window.kernel == 1:
        parts = [(weight.data_ptr(), dweight.data_ptr(), columns, 0)]
        _core.sampled_backward(packed, x, relu, parts, packed_up, dx, accumulate[0], threads)
    else:
        _core.dense_backward(
            packed,
            x,
            relu,
            columns,
            weight.data_ptr(),
            packed_up,
            dweight.data_ptr(),
            dx,
            accumulate[0],
            threads,
        )
    return dweight


def reduction(
    x: Tensor, relu: bool, even: Tensor, odd: Tensor, statistics: bool
) -> tuple[Tensor, Tensor | None]:
    """See `Backend.reduction`."""
    n, _, height, width = x.shape
    columns = even.shape[0] + odd.shape[0]
    z = _arena.image(n, columns, (height + 1) // 2, (width + 1) // 2)
    found = _arena.flat(2, columns) if statistics else None
    even, odd = even.contiguous(), odd.contiguous()
    _core.sampled(
        pack_window(_EVERY_SECOND, x),
        x.data_ptr(),
        relu,
        [(even.data_ptr(), 0, even.shape[0], 0), (odd.data_ptr(), 0, odd.shape[0], 1)],
        z.data_ptr(),
        _address(found),
        torch.get_num_threads(),
    )
    return z, found


def reduction_backward(
    up: Upstream,
    x: Tensor,
    relu: bool,
    even: Tensor,
    odd: Tensor,
    dx: Tensor | None,
    accumulate: bool,
) -> tuple[Tensor, Tensor]:
    """See `Backend.reduction_backward`."""
    even, odd = even.contiguous(), odd.contiguous()
    d_even, d_odd = torch.empty_like(even), torch.empty_like(odd)
    _core.sampled_backward(
        pack_window(_EVERY_SECOND, x),
        x.data_ptr(),
        relu,
        [
            (even.data_ptr(), d_even.data_ptr(), even.shape[0], 0),
            (odd.data_ptr(), d_odd.data_ptr(), odd.shape[0], 1),
        ],
        _arena.pack_upstream(up),
        _address(dx),
        accumulate,
        torch.get_num_threads(),
    )
    return d_even, d_odd


_EVERY_SECOND = Window(1, 2)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _concatenated(xs: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(xs), 1).contiguous(memory_format=torch.channels_last)


def _concatenated_backward(
    up: Upstream,
    xs: Sequence[Tensor],
    relu: bool,
    window: Window,
    weight: Tensor,
    dxs: Sequence[Tensor | None],
    accumulate: Sequence[bool],
) -> Tensor:
    """A concatenation under a stride: rare enough to be written after all."""
    x = _concatenated(xs)
    dx = _arena.image(*x.shape)
    dweight = conv_backward(up, [x], relu, window, weight, [dx], [False])
    first = 0
    for each, to, is_added in zip(xs, dxs, accumulate, strict=True):
        own = dx[:, first : first + each.shape[1]]
        first += each.shape[1]
        if to is not None and is_added:
            to += own
        elif to is not None:
            to.copy_(own)
    return dweight
