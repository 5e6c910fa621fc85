"""Dense convolutions as implicit matrix products: two launches forward.

Backward: one launch for each input's gradient, one for each input's part of the weight's, and one
that sums these parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from hwnas.kernels.backend import Norm, Upstream, Window
from hwnas.kernels.triton import _matrix
from hwnas.kernels.triton._host import (
    PRECISION,
    PROGRAMS,
    Tiles,
    blocks,
    floats,
    image,
    power_of_two,
    upstream_args,
    upstream_meta,
    vector,
    zeros,
)
from hwnas.kernels.triton._spec import KernelSpec, Traffic, launch
from hwnas.kernels.triton.reduce import merge_statistics, sum_partials

if TYPE_CHECKING:
    from torch import Tensor


def config(
    images: int,
    height: int,
    width: int,
    channels: int,
    out_channels: int,
    dtype: torch.dtype,
    pixels: int = 64,
) -> tuple[Tiles, int, int, int]:
    """Return tiles of about `pixels`, input and output channels of a block, and warps."""
    across = power_of_two(channels, 16, 64 if dtype.itemsize == 2 else 32)
    out_across = power_of_two(out_channels, 16, 64)
    tiles = Tiles.of(images, height, width, pixels, least=16)
    return tiles, across, out_across, 4


def conv(
    xs: Sequence[Tensor], relu: bool, window: Window, weight: Tensor, statistics: bool
) -> tuple[Tensor, Tensor | None]:
    """See `Backend.conv`."""
    strides = _strides(weight)
    return forward(xs, relu, window, [weight], strides, statistics)


def forward(
    xs: Sequence[Tensor],
    relu: bool,
    window: Window,
    weights: Sequence[Tensor],
    strides: tuple[int, int, int],
    statistics: bool,
) -> tuple[Tensor, Tensor | None]:
    """Run one convolution, or the two of a reduction, whose results lie side by side."""
    x = xs[0]
    n, _, height, width = x.shape
    own_channels = weights[0].shape[0]
    out_channels = own_channels * len(weights)
    p, q = window.size(height), window.size(width)
    z = image(x, out_channels, p, q)
    if n == 0:
        return z, zeros(x, 2, out_channels) if statistics else None
    widest = max(each.shape[1] for each in xs)
    tiles, across, out_across, warps = config(n, p, q, widest, own_channels, x.dtype)
    step = min(vector(each.shape[1]) for each in xs)
    partial = floats(x, tiles.count if statistics else 0, 2, out_channels)
    counts = floats(x, tiles.count if statistics else 0)
    launch(
        _matrix.conv_forward,
        "matrix",
        (tiles.count, blocks(own_channels, out_across), len(weights)),
        x,
        (
            tuple(xs),
            weights[0],
            weights[-1],
            z,
            partial,
            counts,
            height,
            width,
            p,
            q,
            tiles.down,
            tiles.across,
            tuple(each.shape[1] // step for each in xs),
            own_channels // vector(own_channels),
            strides[0] // step,
            *strides[1:],
        ),
        num_warps=warps,
        num_stages=1,
        traffic=lambda: _traffic(xs, z, tiles, window, own_channels, out_across),
        VC=step,
        VD=vector(own_channels),
        RELU=relu,
        STATISTICS=statistics,
        HALVES=len(weights),
        **_window_meta(window),
        **tiles.meta,
        BC=across,
        BD=out_across,
        PRECISION=PRECISION,
    )
    return z, merge_statistics(partial, counts) if statistics else None


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
    if xs[0].shape[0] == 0:
        return torch.zeros_like(weight)
    strides = _strides(weight)
    flat = weight.permute(0, 2, 3, 1).reshape(-1) if strides[1] == 1 else weight.reshape(-1)
    before = 0
    for x, dx, add in zip(xs, dxs, accumulate, strict=True):
        if dx is not None:
            own = flat[before * strides[1] :]
            _input(up, x, relu, window, own, strides, dx, add)
        before += x.shape[1]
    return weight_gradients(up, xs, relu, window, [weight])[0]


def _input(
    up: Upstream,
    x: Tensor,
    relu: bool,
    window: Window,
    weight: Tensor,
    strides: tuple[int, int, int],
    dx: Tensor,
    add: bool,
) -> None:
    n, channels, height, width = x.shape
    out_channels, p, q = up.gradient.shape[1:]
    tiles, across, out_across, warps = config(n, height, width, channels, out_channels, x.dtype)
    # The row of all inputs' channels must be a whole number of vectors, too.
    step = min(vector(channels), vector(strides[0]))
    launch(
        _matrix.conv_input,
        "matrix",
        (tiles.count, blocks(channels, across)),
        x,
        (
            *upstream_args(up),
            x,
            weight,
            dx,
            height,
            width,
            p,
            q,
            tiles.down,
            tiles.across,
            channels // step,
            out_channels // vector(out_channels),
            strides[0] // step,
            *strides[1:],
        ),
        num_warps=warps * 2,
        num_stages=1,
        VC=step,
        VD=vector(out_channels),
        **upstream_meta(up),
        RELU=relu,
        ADD=add,
        **_window_meta(window),
        **tiles.meta,
        BC=across,
        # Products of float32 hold each factor twice: their sums over channels are kept short.
        BD=min(out_across, 128 // x.element_size()),
        PRECISION=PRECISION,
    )


def weight_gradients(
    up: Upstream,
    xs: Sequence[Tensor],
    relu: bool,
    window: Window,
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """Return the gradient of each weight, for one convolution or the two of a reduction."""
    n, _, height, width = xs[0].shape
    p, q = up.gradient.shape[2:]
    own_channels, total = weights[0].shape[:2]
    taps = window.kernel**2
    widest = max(x.shape[1] for x in xs)
    dtype = xs[0].dtype
    # Products of float32 hold each factor twice: their sums over pixels are kept short.
    pixels = 32 if dtype.itemsize == 4 else 64
    tiles, across, out_across, warps = config(n, p, q, widest, own_channels, dtype, pixels)
    blocks_d = blocks(own_channels, out_across)
    programs = max(PROGRAMS // (taps * blocks(widest, across) * blocks_d * len(weights)), 8)
    parts = blocks(tiles.count, blocks(tiles.count, programs))
    partial = floats(xs[0], len(weights), parts, own_channels * total * taps)
    flat = partial.reshape(-1)
    before = 0
    for x in xs:
        channels = x.shape[1]
        blocks_c = blocks(channels, across)
        launch(
            _matrix.conv_weight,
            "matrix",
            (parts, taps * blocks_c, blocks_d * len(weights)),
            x,
            (
                *upstream_args(up),
                x,
                flat[before * taps :],
                height,
                width,
                p,
                q,
                tiles.down,
                tiles.across,
                tiles.count,
                blocks_c,
                total,
                channels // vector(channels),
                own_channels // vector(own_channels),
            ),
            num_warps=warps,
            num_stages=1,
            VC=vector(channels),
            VD=vector(own_channels),
            **upstream_meta(up),
            RELU=relu,
            HALVES=len(weights),
            **_window_meta(window),
            **tiles.meta,
            BC=across,
            BD=out_across,
            PRECISION=PRECISION,
        )
        before += channels
    pairs = zip(partial, weights, strict=True)
    return [sum_partials(each, tuple(weight.shape), weight.dtype) for each, weight in pairs]


def _strides(weight: Tensor) -> tuple[int, int, int]:
    """Return the steps in memory between output channels, input channels and taps."""
    _, channels, kernel, _ = weight.shape
    taps = kernel * kernel
    if taps > 1 and not weight.is_contiguous():
        # Not contiguous: channels_last is the one other order that parameters have.
        assert weight.is_contiguous(memory_format=torch.channels_last), weight.stride()
        return channels * taps, 1, channels
    return channels * taps, taps, 1


def _window_meta(window: Window) -> dict[str, Any]:
    return {"K": window.kernel, "STRIDE": window.stride, "DILATION": window.dilation}


def _traffic(
    xs: Sequence[Tensor],
    z: Tensor,
    tiles: Tiles,
    window: Window,
    own_channels: int,
    out_across: int,
) -> Traffic:
    x = xs[0]
    pixels = tiles.touched((x.shape[2], x.shape[3]), (z.shape[2], z.shape[3]), window)
    channels = sum(each.shape[1] for each in xs) * x.element_size()
    out = z.numel() * z.element_size()
    times = blocks(own_channels, out_across) * (z.shape[1] // own_channels)
    read = x.shape[0] * x.shape[2] * x.shape[3] * channels
    if window.kernel == 1:
        # Strides leave pixels out, and the halves of a reduction read different ones.
        pixels = z.shape[0] * z.shape[2] * z.shape[3]
        read = pixels * channels * (z.shape[1] // own_channels)
    return Traffic(pixels * channels * times + out, read + out)


def sample(dtype: torch.dtype, channels: int, side: int) -> tuple[Tensor, Upstream]:
    """Return an input without memory, and an upstream gradient of its shape."""
    x = image(torch.empty(64, 0, dtype=dtype, device="meta"), channels, side, side)
    norm = Norm(floats(x, 2, channels), x.new_empty(channels), x.new_empty(channels), 1e-5, True)
    return x, Upstream(x, x, norm, floats(x, 2, channels))


def _spec(kernel: int) -> list[KernelSpec]:
    window = Window(kernel)

    def forward_of(dtype: torch.dtype) -> object:
        x, _ = sample(dtype, 64, 16)
        return conv([x], True, window, x.new_empty(64, 64, kernel, kernel), True)

    def backward_of(dtype: torch.dtype) -> object:
        x, up = sample(dtype, 64, 16)
        weight = x.new_empty(64, 64, kernel, kernel)
        return conv_backward(up, [x], True, window, weight, [x], [True])

    label = f"conv {kernel}×{kernel}, 64×64×16²"
    return [
        KernelSpec(label, "matrix", forward_of, kernel="conv_forward"),
        KernelSpec(f"{label}, input", "matrix", backward_of, kernel="conv_input"),
        KernelSpec(f"{label}, weight", "matrix", backward_of, kernel="conv_weight"),
    ]


KERNELS: list[KernelSpec] = [*_spec(1), *_spec(3)]
