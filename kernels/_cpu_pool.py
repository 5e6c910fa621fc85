"""`pool` and `pool_backward` of the CPU backend, on `hwnas._core`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hwnas import _core
from hwnas.kernels import _arena
from hwnas.kernels._cpu_queue import address, call
from hwnas.kernels._cpu_window import pack_window

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.backend import Upstream, Window


def pool(
    x: Tensor, is_max: bool, window: Window, statistics: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """See `Backend.pool`."""
    n, channels, height, width = x.shape
    size = (n, channels, window.size(height), window.size(width))
    z = _arena.image(*size)
    index = _arena.byte_image(*size) if is_max else None
    found = _arena.flat(2, channels) if statistics else None
    call(
        _core.pool,
        pack_window(window, x),
        address(x),
        address(z),
        address(index),
        address(found),
        torch.get_num_threads(),
    )
    return z, index, found


def pool_backward(
    up: Upstream,
    index: Tensor | None,
    is_max: bool,
    window: Window,
    dx: Tensor,
    accumulate: bool,
) -> None:
    """See `Backend.pool_backward`."""
    call(
        _core.pool_backward,
        pack_window(window, dx),
        _arena.pack_upstream(up),
        0 if index is None or not is_max else address(index),
        address(dx),
        accumulate,
        torch.get_num_threads(),
    )
