"""`combine`, `combine_backward` and `accumulate` of the CPU backend, on `hwnas._core`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from hwnas import _core
from hwnas.kernels import _arena
from hwnas.kernels._cpu_queue import address, call

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.backend import Norm, Upstream


def combine(
    zs: Sequence[Tensor],
    norms: Sequence[Norm | None],
    gates: Tensor | None,
    relu: bool,
) -> Tensor:
    """See `Backend.combine`."""
    n, channels, height, width = zs[0].shape
    y = _arena.image(n, channels, height, width)
    call(
        _core.combine,
        [address(z) for z in zs],
        [_arena.pack_norm(norm) for norm in norms],
        [1.0] * len(zs) if gates is None else gates.tolist(),
        relu,
        n * height * width,
        channels,
        address(y),
        torch.get_num_threads(),
    )
    return y


def combine_backward(
    gradient: Tensor,
    zs: Sequence[Tensor | None],
    norms: Sequence[Norm | None],
    relu: bool,
) -> Tensor:
    """See `Backend.combine_backward`."""
    n, channels, height, width = gradient.shape
    sums = _arena.flat(len(zs), 2, channels)
    call(
        _core.combine_backward,
        address(gradient),
        [address(z) for z in zs],
        [_arena.pack_norm(norm) for norm in norms],
        relu,
        n * height * width,
        channels,
        address(sums),
        torch.get_num_threads(),
    )
    return sums


def accumulate(up: Upstream, dx: Tensor, accumulate: bool) -> None:
    """See `Backend.accumulate`."""
    n, channels, height, width = dx.shape
    call(
        _core.accumulate,
        _arena.pack_upstream(up),
        n * height * width,
        channels,
        address(dx),
        accumulate,
        torch.get_num_threads(),
    )
