"""`conv`, `reduction` and their gradients of the CPU backend, on `hwnas._core`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from hwnas import _core
from hwnas.kernels import _arena
from hwnas.kernels._cpu_queue import address, call, catch_up
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
    to = (address(z), address(found), torch.get_num_threads())
    if window.kernel == 1 and window.stride == 1:
        inputs = [(address(x), x.shape[1], 0, False) for x in xs]
        call(_core.pointwise, inputs, relu, n * height * width, columns, address(weight), *to)
    elif window.kernel == 1:
        parts = [(address(weight), 0, columns, 0)]
        call(_core.sampled, pack_window(window, xs[0]), address(xs[0]), relu, parts, *to)
    else:
        packed = pack_window(window, xs[0])
        call(_core.dense, packed, address(xs[0]), relu, columns, address(weight), *to)
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
            (address(x), x.shape[1], address(dx), is_added)
            for x, dx, is_added in zip(xs, dxs, accumulate, strict=True)
        ]
        call(
            _core.pointwise_backward,
            inputs,
            relu,
            n * height * width,
            columns,
            address(weight),
            packed_up,
            address(dweight),
            threads,
        )
        return dweight
    packed = pack_window(window, xs[0])
    x, dx = address(xs[0]), address(dxs[0])
    if window.kernel == 1:
        parts = [(address(weight), address(dweight), columns, 0)]
        call(_core.sampled_backward, packed, x, relu, parts, packed_up, dx, accumulate[0], threads)
    else:
        call(
            _core.dense_backward,
            packed,
            x,
            relu,
            columns,
            address(weight),
            packed_up,
            address(dweight),
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
    call(
        _core.sampled,
        pack_window(_EVERY_SECOND, x),
        address(x),
        relu,
        [(address(even), 0, even.shape[0], 0), (address(odd), 0, odd.shape[0], 1)],
        address(z),
        address(found),
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
    call(
        _core.sampled_backward,
        pack_window(_EVERY_SECOND, x),
        address(x),
        relu,
        [
            (address(even), address(d_even), even.shape[0], 0),
            (address(odd), address(d_odd), odd.shape[0], 1),
        ],
        _arena.pack_upstream(up),
        address(dx),
        accumulate,
        torch.get_num_threads(),
    )
    return d_even, d_odd


_EVERY_SECOND = Window(1, 2)


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
    catch_up()
    first = 0
    for each, to, is_added in zip(xs, dxs, accumulate, strict=True):
        own = dx[:, first : first + each.shape[1]]
        first += each.shape[1]
        if to is not None and is_added:
            to += own
        elif to is not None:
            to.copy_(own)
    return dweight
