"""The factorised reduction: two launches forward, four backward (two of them are sums)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hwnas.kernels.backend import Upstream, Window
from hwnas.kernels.triton import _matrix, conv
from hwnas.kernels.triton._host import (
    PRECISION,
    blocks,
    image,
    upstream_args,
    upstream_meta,
    vector,
)
from hwnas.kernels.triton._spec import KernelSpec, launch

if TYPE_CHECKING:
    from torch import Tensor

_WINDOW = Window(1, 2)


def reduction(
    x: Tensor, relu: bool, even: Tensor, odd: Tensor, statistics: bool
) -> tuple[Tensor, Tensor | None]:
    """See `Backend.reduction`."""
    return conv.forward([x], relu, _WINDOW, [even, odd], (x.shape[1], 1, 1), statistics)


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
    if x.shape[0] == 0:
        return torch.zeros_like(even), torch.zeros_like(odd)
    if dx is not None:
        _input(up, x, relu, even, odd, dx, accumulate)
    d_even, d_odd = conv.weight_gradients(up, [x], relu, _WINDOW, [even, odd])
    return d_even, d_odd


def _input(
    up: Upstream,
    x: Tensor,
    relu: bool,
    even: Tensor,
    odd: Tensor,
    dx: Tensor,
    accumulate: bool,
) -> None:
    n, channels, height, width = x.shape
    p, q = up.gradient.shape[2:]
    own_channels = even.shape[0]
    tiles, across, out_across, warps = conv.config(n, p, q, channels, own_channels, x.dtype)
    launch(
        _matrix.reduction_input,
        "matrix",
        (tiles.count, blocks(channels, across)),
        x,
        (
            *upstream_args(up),
            x,
            even,
            odd,
            dx,
            height,
            width,
            p,
            q,
            tiles.down,
            tiles.across,
            channels // vector(channels),
            own_channels // vector(own_channels),
        ),
        num_warps=warps,
        num_stages=1,
        VC=vector(channels),
        VD=vector(own_channels),
        **upstream_meta(up),
        RELU=relu,
        ADD=accumulate,
        **tiles.meta,
        BC=across,
        BD=out_across,
        PRECISION=PRECISION,
    )


def _forward(dtype: torch.dtype) -> object:
    x, _ = conv.sample(dtype, 64, 16)
    weight = x.new_empty(32, 64, 1, 1)
    return reduction(x, True, weight, weight, True)


def _backward(dtype: torch.dtype) -> object:
    small, up = conv.sample(dtype, 64, 8)
    x = image(small, 64, 16, 16)
    weight = x.new_empty(32, 64, 1, 1)
    return reduction_backward(up, x, True, weight, weight, x, False)


KERNELS: list[KernelSpec] = [
    KernelSpec("reduction, 64×64×16²", "matrix", _forward, kernel="conv_forward"),
    KernelSpec("reduction, input", "matrix", _backward, kernel="reduction_input"),
    KernelSpec("reduction, weight", "matrix", _backward, kernel="conv_weight"),
]
