"""Max and average pooling: two launches forward (the second merges statistics), one backward."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from hwnas.kernels.backend import Norm, Upstream, Window
from hwnas.kernels.triton._device import (
    gate_value,
    norm_slope,
    store_partial_statistics,
    tile_pixels,
    upstream,
)
from hwnas.kernels.triton._host import (
    Tiles,
    blocks,
    floats,
    image,
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


@triton.jit
def _taps_inside(p, H, K: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr):
    """Return how many of a window's rows (columns) lie inside."""
    first = p * STRIDE - DILATION * (K - 1) // 2
    found = tl.zeros(p.shape, tl.float32)
    for i in tl.static_range(K):
        at = first + i * DILATION
        found += ((at >= 0) & (at < H)).to(tl.float32)
    return found


@triton.jit
def _pool(
    x,
    z,
    index,
    partial,
    counts,
    H,
    W,
    P,
    Q,
    tiles_h,
    tiles_w,
    groups,
    V: tl.constexpr,
    IS_MAX: tl.constexpr,
    STATISTICS: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    BC: tl.constexpr,
):
    channels = groups * V
    part = tl.program_id(0)
    image, p, q = tile_pixels(part, tiles_h, tiles_w, BH, BW)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    c_inside = c < channels
    x += image * H * W * channels
    best = tl.zeros([BH * BW, BC], tl.float32)
    won = tl.full([BH * BW, BC], -1, tl.int32)
    for tap in range(K * K):
        row = p * STRIDE - DILATION * (K - 1) // 2 + tap // K * DILATION
        column = q * STRIDE - DILATION * (K - 1) // 2 + tap % K * DILATION
        hit = (row >= 0) & (row < H) & (column >= 0) & (column < W)
        seen = hit[:, None] & c_inside[None, :]
        at = (row * W + column)[:, None] * channels + c[None, :]
        value = tl.load(x + at, mask=seen, other=0.0).to(tl.float32)
        if IS_MAX:
            # The first of equal ones; NaN wins, the last of several.
            better = seen & ((won < 0) | (value > best) | (value != value))  # noqa: PLR0124
            best = tl.where(better, value, best)
            won = tl.where(better, tap, won)
        else:
            best += value
    if not IS_MAX:
        rows = _taps_inside(p, H, K, STRIDE, DILATION)
        columns = _taps_inside(q, W, K, STRIDE, DILATION)
        best = best / tl.maximum(rows * columns, 1.0)[:, None]
    inside = (p < P) & (q < Q)
    at = (p * Q + q)[:, None] * channels + c[None, :]
    seen = inside[:, None] & c_inside[None, :]
    base = image * P * Q * channels
    value = best.to(z.dtype.element_ty)
    tl.store(z + base + at, value, mask=seen)
    if IS_MAX:
        tl.store(index + base + at, won.to(tl.uint8), mask=seen)
    if STATISTICS:
        store_partial_statistics(
            value.to(tl.float32), inside, c, c_inside, partial, counts, part, channels
        )


@triton.jit
def _pool_backward(
    gradient,
    z,
    statistics,
    scale,
    shift,
    epsilon,
    sums,
    inverse_count,
    gates,
    branch,
    index,
    dx,
    H,
    W,
    P,
    Q,
    tiles_h,
    tiles_w,
    groups,
    taps,
    V: tl.constexpr,
    MODE: tl.constexpr,
    UP_RELU: tl.constexpr,
    GATED: tl.constexpr,
    IS_MAX: tl.constexpr,
    ADD: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    BC: tl.constexpr,
):
    """Write a tile of dx: each input pixel gathers from the windows that saw it."""
    channels = groups * V
    image, h, w = tile_pixels(tl.program_id(0), tiles_h, tiles_w, BH, BW)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    c_inside = c < channels
    gate = gate_value(gates, branch, GATED)
    base = image * P * Q * channels
    # dz is linear in g and z: what is the same for a channel waits until the taps are summed.
    IS_LINEAR: tl.constexpr = MODE == 2 and not UP_RELU
    # A mean is taken from 16-bit values behind the sum, too: float32 holds that exactly enough.
    IS_WIDE: tl.constexpr = gradient.dtype.element_ty == tl.float32
    mean = tl.zeros([BC], tl.float32)
    if IS_LINEAR and IS_WIDE:
        mean = tl.load(statistics + c, mask=c_inside, other=0.0)
    total = tl.zeros([BH * BW, BC], tl.float32)
    centred = tl.zeros([BH * BW, BC], tl.float32)
    number = tl.zeros([BH * BW, BC if IS_MAX else 1], tl.float32)
    # How many taps there are is not told to the compiler: it would unroll, and spill.
    for tap in tl.range(0, taps, disable_licm=True):
        row = h + DILATION * (K - 1) // 2 - tap // K * DILATION
        column = w + DILATION * (K - 1) // 2 - tap % K * DILATION
        p = row // STRIDE
        q = column // STRIDE
        hit = (row >= 0) & (p < P) & (row % STRIDE == 0)
        hit = hit & (column >= 0) & (q < Q) & (column % STRIDE == 0)
        seen = hit[:, None] & c_inside[None, :]
        at = (p * Q + q)[:, None] * channels + c[None, :]
        if IS_MAX:
            won = tl.load(index + base + at, mask=seen, other=255).to(tl.int32)
            weight = (won == tap).to(tl.float32)
        else:
            rows = _taps_inside(p, H, K, STRIDE, DILATION)
            columns = _taps_inside(q, W, K, STRIDE, DILATION)
            weight = tl.where(hit, 1.0 / tl.maximum(rows * columns, 1.0), 0.0)[:, None]
        if IS_LINEAR:
            value = tl.load(z + base + at, mask=seen, other=0.0).to(tl.float32)
            total += weight * tl.load(gradient + base + at, mask=seen, other=0.0).to(tl.float32)
            centred += weight * (value - mean[None, :])
            number += weight
        else:
            total += weight * upstream(
                gradient + base, z + base, at, seen, c, c_inside, channels, statistics, scale,
                shift, sums, gate, epsilon, inverse_count, MODE, UP_RELU,
            )  # fmt: skip
    if IS_LINEAR:
        if not IS_WIDE:
            mean = tl.load(statistics + c, mask=c_inside, other=0.0)
            centred -= number * mean[None, :]
        first = tl.load(sums + c, mask=c_inside, other=0.0) * inverse_count
        total -= number * first[None, :]
        _, inverse, factor = norm_slope(statistics, scale, c, c_inside, channels, epsilon)
        second = tl.load(sums + channels + c, mask=c_inside, other=0.0) * inverse_count
        total -= centred * (inverse * second)[None, :]
        total *= (gate * factor * inverse)[None, :]
        # Registers: what is added must not be loaded before the vectors of channels are done with.
        tl.debug_barrier()
    inside = ((h < H) & (w < W))[:, None] & c_inside[None, :]
    dx += image * H * W * channels
    at = (h * W + w)[:, None] * channels + c[None, :]
    if ADD:
        total += tl.load(dx + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx + at, total.to(dx.dtype.element_ty), mask=inside)


def config(
    images: int, height: int, width: int, channels: int, dtype: torch.dtype
) -> tuple[Tiles, int, int]:
    """Return tiles, channels of a block and warps: one 128-bit vector for each thread."""
    across = power_of_two(channels, 1, 32)
    tiles = Tiles.of(images, height, width, 128 if dtype.itemsize == 2 else 64)
    elements = across * tiles.rows * tiles.columns
    return tiles, across, power_of_two(elements // (16 // dtype.itemsize * 32), 1, 16)


def pool(
    x: Tensor, is_max: bool, window: Window, statistics: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """See `Backend.pool`."""
    n, channels, height, width = x.shape
    p, q = window.size(height), window.size(width)
    z = image(x, channels, p, q)
    index = image(x, channels, p, q, torch.uint8) if is_max else None
    if n == 0:
        return z, index, zeros(x, 2, channels) if statistics else None
    tiles, across, warps = config(n, p, q, channels, x.dtype)
    partial = floats(x, tiles.count if statistics else 0, 2, channels)
    counts = floats(x, tiles.count if statistics else 0)
    launch(
        _pool,
        "pool",
        (tiles.count, blocks(channels, across)),
        x,
        (
            x,
            z,
            z if index is None else index,
            partial,
            counts,
            height,
            width,
            p,
            q,
            tiles.down,
            tiles.across,
            channels // vector(channels),
        ),
        num_warps=warps,
        num_stages=1,
        traffic=lambda: _traffic(x, z, tiles, window, is_max),
        V=vector(channels),
        IS_MAX=is_max,
        STATISTICS=statistics,
        K=window.kernel,
        STRIDE=window.stride,
        DILATION=window.dilation,
        **tiles.meta,
        BC=across,
    )
    return z, index, merge_statistics(partial, counts) if statistics else None


def pool_backward(
    up: Upstream,
    index: Tensor | None,
    is_max: bool,
    window: Window,
    dx: Tensor,
    accumulate: bool,
) -> None:
    """See `Backend.pool_backward`."""
    n, channels, height, width = dx.shape
    p, q = up.gradient.shape[2:]
    tiles, across, warps = config(n, height, width, channels, dx.dtype)
    launch(
        _pool_backward,
        "pool",
        (tiles.count, blocks(channels, across)),
        dx,
        (
            *upstream_args(up),
            up.gradient if index is None else index,
            dx,
            height,
            width,
            p,
            q,
            tiles.down,
            tiles.across,
            channels // vector(channels),
            window.kernel**2,
        ),
        num_warps=warps,
        num_stages=1,
        traffic=lambda: _backward_traffic(up, dx, tiles, window, is_max, accumulate),
        V=vector(channels),
        **upstream_meta(up),
        IS_MAX=is_max,
        ADD=accumulate,
        K=window.kernel,
        STRIDE=window.stride,
        DILATION=window.dilation,
        **tiles.meta,
        BC=across,
    )


def _traffic(x: Tensor, z: Tensor, tiles: Tiles, window: Window, is_max: bool) -> Traffic:
    pixels = tiles.touched((x.shape[2], x.shape[3]), (z.shape[2], z.shape[3]), window)
    size = x.element_size()
    out = z.numel() * (size + is_max)
    return Traffic(pixels * x.shape[1] * size + out, x.numel() * size + out)


def _backward_traffic(
    up: Upstream, dx: Tensor, tiles: Tiles, window: Window, is_max: bool, accumulate: bool
) -> Traffic:
    side = (dx.shape[2], dx.shape[3])
    pixels = tiles.touched(side, side, Window(window.kernel, 1, window.dilation))
    size = dx.element_size()
    each = upstream_reads(up) * size + is_max
    rest = dx.numel() * size * (1 + accumulate)
    halo = pixels // window.stride**2 * dx.shape[1] * each
    return Traffic(halo + rest, up.gradient.numel() * each + rest)


def _spec(is_max: bool, channels: int, side: int) -> list[KernelSpec]:
    window = Window(3)

    def input_of(dtype: torch.dtype) -> Tensor:
        return image(torch.empty(64, 0, dtype=dtype, device="meta"), channels, side, side)

    def forward(dtype: torch.dtype) -> object:
        return pool(input_of(dtype), is_max, window, True)

    def backward(dtype: torch.dtype) -> None:
        x = input_of(dtype)
        norm = Norm(
            floats(x, 2, channels), x.new_empty(channels), x.new_empty(channels), 1e-5, True
        )
        index = image(x, channels, side, side, torch.uint8) if is_max else None
        up = Upstream(x, x, norm, floats(x, 2, channels))
        pool_backward(up, index, is_max, window, x, True)

    label = f"{'max' if is_max else 'average'} pool 3×3, 64×{channels}×{side}²"
    return [
        KernelSpec(label, "pool", forward, kernel="pool"),
        KernelSpec(f"{label}, backward", "pool", backward, kernel="pool_backward"),
    ]


KERNELS: list[KernelSpec] = [
    spec
    for is_max in (True, False)
    for channels, side in ((16, 32), (64, 8))
    for spec in _spec(is_max, channels, side)
]
