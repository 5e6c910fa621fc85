"""The separable stage: two launches forward, two backward.

Forward: one kernel for z and each tile's statistics, one that merges these. Backward: the first
kernel computes dz from the upstream gradient, the gradient of the depthwise result, and partial
gradients of the weights; the second that of the input, and sums the partial ones. The sums over
the input's norm are added by atomics into what the first kernel set to zero: they alone are not
the same to the last bit in each run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hwnas.kernels.backend import Norm, Upstream, Window
from hwnas.kernels.triton import _depthwise
from hwnas.kernels.triton._host import (
    PRECISION,
    PROGRAMS,
    Tiles,
    blocks,
    floats,
    image,
    norm_args,
    power_of_two,
    upstream_args,
    upstream_meta,
    upstream_reads,
    vector,
    zeros,
)
from hwnas.kernels.triton._spec import KernelSpec, Traffic, launch
from hwnas.kernels.triton.reduce import merge_statistics

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes of a program.

    Attributes:
        tiles: Of the pixels.
        channels: Input channels of a block.
        out_channels: Output channels of a block.
        warps: Of a program.
        depth: Output channels that one product of the first backward kernel sums over.
    """

    tiles: Tiles
    channels: int
    out_channels: int
    warps: int
    depth: int = 16


def config(
    images: int, height: int, width: int, channels: int, out_channels: int, dtype: torch.dtype
) -> Config:
    """Return the sizes for the forward kernel, over `[N, P, Q]`."""
    across = power_of_two(channels, 16, 32 if dtype.itemsize == 4 else 64)
    out_across = power_of_two(out_channels, 16, 64)
    widest = max(across, out_across)
    pixels = 128 if widest <= 32 else 64
    tiles = Tiles.of(images, height, width, pixels, least=16)
    return Config(tiles, across, out_across, 8 if widest * pixels >= 4096 else 4)


def backward_config(
    images: int, height: int, width: int, channels: int, out_channels: int, dtype: torch.dtype
) -> Config:
    """Return the sizes for the first backward kernel: the most that fits into registers."""
    across = power_of_two(channels, 16, 64)
    out_across = power_of_two(out_channels, 16, 64)
    widest = max(across, out_across)
    if dtype.itemsize == 4:
        pixels, depth, warps = {16: (64, 16, 4), 32: (32, 16, 4), 64: (32, 32, 8)}[widest]
    else:
        pixels, depth, warps = {16: (128, 16, 4), 32: (32, 32, 4), 64: (32, 64, 8)}[widest]
    tiles = Tiles.of(images, height, width, pixels, least=16)
    return Config(tiles, across, out_across, warps, depth)


def input_config(images: int, height: int, width: int, channels: int, dtype: torch.dtype) -> Config:
    """Return the sizes for the gradient of the input, over `[N, H, W]`."""
    across = power_of_two(channels, 1, 32)
    tiles = Tiles.of(images, height, width, 128)
    elements = 16 // dtype.itemsize * 32
    warps = power_of_two(across * tiles.rows * tiles.columns // elements, 1, 8)
    return Config(tiles, across, 1, warps)


def separable(
    x: Tensor,
    norm: Norm | None,
    window: Window,
    depthwise: Tensor,
    pointwise: Tensor,
    statistics: bool,
) -> tuple[Tensor, Tensor | None]:
    """See `Backend.separable`."""
    n, channels, height, width = x.shape
    out_channels = pointwise.shape[0]
    p, q = window.size(height), window.size(width)
    z = image(x, out_channels, p, q)
    if n == 0:
        return z, zeros(x, 2, out_channels) if statistics else None
    sizes = config(n, p, q, channels, out_channels, x.dtype)
    tiles = sizes.tiles
    partial = floats(x, tiles.count if statistics else 0, 2, out_channels)
    counts = floats(x, tiles.count if statistics else 0)
    launch(
        _depthwise.separable_forward,
        "matrix",
        (tiles.count, blocks(out_channels, sizes.out_channels)),
        x,
        (
            x,
            *norm_args(norm, x),
            depthwise,
            pointwise,
            z,
            partial,
            counts,
            height,
            width,
            p,
            q,
            tiles.down,
            tiles.across,
            channels // vector(channels),
            out_channels // vector(out_channels),
        ),
        num_warps=sizes.warps,
        num_stages=1,
        traffic=lambda: _forward_traffic(x, z, window, sizes),
        VC=vector(channels),
        VD=vector(out_channels),
        NORM=norm is not None,
        STATISTICS=statistics,
        **_window_meta(window),
        **tiles.meta,
        BC=sizes.channels,
        BD=sizes.out_channels,
        PRECISION=PRECISION,
    )
    return z, merge_statistics(partial, counts) if statistics else None


def separable_backward(
    up: Upstream,
    x: Tensor,
    norm: Norm | None,
    window: Window,
    depthwise: Tensor,
    pointwise: Tensor,
    dx: Tensor,
    accumulate: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """See `Backend.separable_backward`."""
    n, channels, _, _ = x.shape
    if n == 0:
        sums = None if norm is None else zeros(x, 2, channels)
        return torch.zeros_like(depthwise), torch.zeros_like(pointwise), sums
    sums = floats(x, 2, channels)
    dh, partial = _backward(up, x, norm, window, depthwise, pointwise, sums)
    d_depthwise = torch.empty_like(depthwise, memory_format=torch.contiguous_format)
    d_pointwise = torch.empty_like(pointwise, memory_format=torch.contiguous_format)
    _input(dh, x, norm, window, depthwise, dx, accumulate, sums, partial, d_pointwise, d_depthwise)
    return d_depthwise, d_pointwise, None if norm is None else sums


def _backward(
    up: Upstream,
    x: Tensor,
    norm: Norm | None,
    window: Window,
    depthwise: Tensor,
    pointwise: Tensor,
    sums: Tensor,
) -> tuple[Tensor, Tensor]:
    n, channels, height, width = x.shape
    out_channels, p, q = up.gradient.shape[1:]
    sizes = backward_config(n, p, q, channels, out_channels, x.dtype)
    tiles = sizes.tiles
    rounds = blocks(tiles.count, PROGRAMS)
    parts = blocks(tiles.count, rounds)
    blocks_d = blocks(out_channels, sizes.out_channels)
    dh = image(x, channels, p, q)
    partial = floats(x, parts, (out_channels + window.kernel**2) * channels)
    launch(
        _depthwise.separable_backward,
        "matrix",
        (parts, blocks(channels, sizes.channels), blocks_d),
        x,
        (
            *upstream_args(up),
            x,
            *norm_args(norm, x),
            depthwise,
            pointwise,
            dh,
            partial,
            sums,
            height,
            width,
            p,
            q,
            tiles.down,
            tiles.across,
            tiles.count,
            channels // vector(channels),
            out_channels // vector(out_channels),
        ),
        num_warps=sizes.warps,
        num_stages=1,
        traffic=lambda: _backward_traffic(up, x, dh, window, sizes),
        VC=vector(channels),
        VD=vector(out_channels),
        **upstream_meta(up),
        NORM=norm is not None,
        **_window_meta(window),
        **tiles.meta,
        BC=sizes.channels,
        BD=sizes.out_channels,
        BK=sizes.depth,
        TAPS=power_of_two(window.kernel**2),
        PRECISION=PRECISION,
    )
    return dh, partial


def _input(
    dh: Tensor,
    x: Tensor,
    norm: Norm | None,
    window: Window,
    depthwise: Tensor,
    dx: Tensor,
    accumulate: bool,
    sums: Tensor,
    partial: Tensor,
    d_pointwise: Tensor,
    d_depthwise: Tensor,
) -> None:
    n, channels, height, width = x.shape
    p, q = dh.shape[2:]
    sizes = input_config(n, height, width, channels, x.dtype)
    tiles = sizes.tiles
    blocks_c = blocks(channels, sizes.channels)
    parts, weights = partial.shape
    length = 32
    launch(
        _depthwise.separable_input,
        "depthwise",
        (tiles.count * blocks_c + blocks(weights, length),),
        x,
        (
            dh,
            x,
            *norm_args(norm, x),
            depthwise,
            dx,
            sums,
            partial,
            d_pointwise,
            d_depthwise,
            height,
            width,
            p,
            q,
            tiles.down,
            tiles.across,
            tiles.count,
            blocks_c,
            parts,
            channels // vector(channels),
            d_pointwise.shape[0],
            window.kernel**2,
        ),
        num_warps=sizes.warps,
        num_stages=1,
        traffic=lambda: _input_traffic(dh, x, window, sizes, accumulate),
        VC=vector(channels),
        NORM=norm is not None,
        ADD=accumulate,
        **_window_meta(window),
        **tiles.meta,
        BC=sizes.channels,
        ROWS=power_of_two(parts, 1, 32),
        LENGTH=length,
    )


def _window_meta(window: Window) -> dict[str, Any]:
    return {"K": window.kernel, "STRIDE": window.stride, "DILATION": window.dilation}


def _bytes(like: Tensor) -> int:
    return like.numel() * like.element_size()


def _forward_traffic(x: Tensor, z: Tensor, window: Window, sizes: Config) -> Traffic:
    pixels = sizes.tiles.touched((x.shape[2], x.shape[3]), (z.shape[2], z.shape[3]), window)
    times = blocks(z.shape[1], sizes.out_channels)
    asked = pixels * x.shape[1] * x.element_size() * times + _bytes(z)
    return Traffic(asked, _bytes(x) + _bytes(z))


def _backward_traffic(
    up: Upstream, x: Tensor, dh: Tensor, window: Window, sizes: Config
) -> Traffic:
    pixels = sizes.tiles.touched((x.shape[2], x.shape[3]), (dh.shape[2], dh.shape[3]), window)
    upstream = upstream_reads(up) * _bytes(up.gradient)
    times_c = blocks(x.shape[1], sizes.channels)
    times_d = blocks(up.gradient.shape[1], sizes.out_channels)
    halo = pixels * x.shape[1] * x.element_size()
    asked = upstream * times_c * times_d + halo * times_d + _bytes(dh)
    return Traffic(asked, upstream + _bytes(x) + _bytes(dh))


def _input_traffic(
    dh: Tensor, x: Tensor, window: Window, sizes: Config, accumulate: bool
) -> Traffic:
    # What a tile of the input reads of dh, in rows and columns of dh.
    reach = Window(window.kernel, 1, window.dilation)
    pixels = sizes.tiles.touched((x.shape[2], x.shape[3]), (x.shape[2], x.shape[3]), reach)
    halo = pixels // window.stride**2 * dh.shape[1] * dh.element_size()
    rest = (2 + accumulate) * _bytes(x)
    return Traffic(halo + rest, _bytes(dh) + rest)


def _sample(
    dtype: torch.dtype, channels: int, side: int, kernel: int
) -> tuple[Tensor, Norm, Window, Tensor, Tensor]:
    x = image(torch.empty(64, 0, dtype=dtype, device="meta"), channels, side, side)
    norm = Norm(floats(x, 2, channels), x.new_empty(channels), x.new_empty(channels), 1e-5, True)
    depthwise = x.new_empty(channels, 1, kernel, kernel)
    return x, norm, Window(kernel), depthwise, x.new_empty(channels, channels, 1, 1)


def _spec(channels: int, side: int, kernel: int) -> list[KernelSpec]:
    def forward(dtype: torch.dtype) -> object:
        return separable(*_sample(dtype, channels, side, kernel), True)

    def backward(dtype: torch.dtype) -> object:
        x, norm, window, depthwise, pointwise = _sample(dtype, channels, side, kernel)
        up = Upstream(x, x, norm, floats(x, 2, channels))
        return separable_backward(up, x, norm, window, depthwise, pointwise, x, False)

    label = f"separable {kernel}×{kernel}, 64×{channels}×{side}²"
    return [
        KernelSpec(label, "matrix", forward, kernel="separable_forward"),
        KernelSpec(f"{label}, backward", "matrix", backward, kernel="separable_backward"),
        KernelSpec(f"{label}, input", "depthwise", backward, kernel="separable_input"),
    ]


KERNELS: list[KernelSpec] = [
    spec
    for channels, side in ((16, 32), (32, 16), (64, 8))
    for kernel in (3, 5)
    for spec in _spec(channels, side, kernel)
]
