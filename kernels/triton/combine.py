"""The epilogue: branches summed with their norms and gates, and the sums that backward needs."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from hwnas.kernels.backend import Norm, Upstream
from hwnas.kernels.triton._device import gate_value, norm_slope, upstream
from hwnas.kernels.triton._host import (
    PROGRAMS,
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
from hwnas.kernels.triton.reduce import sum_partials

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def _combine(
    zs,
    statistics,
    scales,
    shifts,
    epsilons,
    gates,
    y,
    pixels,
    groups,
    V: tl.constexpr,
    NORMS: tl.constexpr,
    GATED: tl.constexpr,
    RELU: tl.constexpr,
    M: tl.constexpr,
    BD: tl.constexpr,
):
    channels = groups * V
    start = tl.program_id(0).to(tl.int64) * M
    pixel = tl.arange(0, M)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    d_inside = d < channels
    inside = (pixel < pixels - start)[:, None] & d_inside[None, :]
    offset = pixel[:, None] * channels + d[None, :]
    total = tl.zeros([M, BD], tl.float32)
    for b in tl.static_range(len(zs)):
        gate = gate_value(gates, b, GATED)
        # A gate of 0 costs nothing, and is no reason to pass a NaN on. The jump also keeps the
        # compiler from loading all branches first, for which there are no registers.
        if gate != 0.0:
            source = zs[b] + start * channels
            value = tl.load(source + offset, mask=inside, other=0.0).to(tl.float32)
            if NORMS[b]:
                mean, inverse, factor = norm_slope(
                    statistics[b], scales[b], d, d_inside, channels, epsilons[b]
                )
                shift = tl.load(shifts[b] + d, mask=d_inside, other=0.0).to(tl.float32)
                value = (factor * inverse)[None, :] * (value - mean[None, :]) + shift[None, :]
            if RELU:
                value = tl.where(value < 0.0, 0.0, value)
            total += value * gate
    tl.store(y + start * channels + offset, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _combine_backward(
    gradient,
    zs,
    statistics,
    scales,
    shifts,
    epsilons,
    partial,
    pixels,
    groups,
    rounds,
    V: tl.constexpr,
    KINDS: tl.constexpr,
    RELU: tl.constexpr,
    M: tl.constexpr,
    BD: tl.constexpr,
):
    """Sum over a range of pixels; KINDS is 0 without z, 1 for z without a norm, 2 with one."""
    channels = groups * V
    part = tl.program_id(0).to(tl.int64)
    start = part * rounds * M
    left = tl.minimum(pixels - start, rounds * M).to(tl.int32)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    d_inside = d < channels
    for b in tl.static_range(len(zs)):
        at = zs[b] + start * channels
        sum_g = tl.zeros([M, BD], tl.float32)
        sum_gz = tl.zeros([M, BD], tl.float32)
        mean = tl.zeros([BD], tl.float32)
        slope = tl.full([BD], 1.0, tl.float32)
        shift = tl.zeros([BD], tl.float32)
        if KINDS[b] == 2 and RELU:
            mean, inverse, factor = norm_slope(
                statistics[b], scales[b], d, d_inside, channels, epsilons[b]
            )
            slope = factor * inverse
            shift = tl.load(shifts[b] + d, mask=d_inside, other=0.0).to(tl.float32)
        for i in tl.range(0, rounds, disable_licm=True):
            # The branches after the first find the gradient of these pixels in the L1 cache.
            pixel = i * M + tl.arange(0, M)
            inside = (pixel < left)[:, None] & d_inside[None, :]
            offset = pixel[:, None] * channels + d[None, :]
            centred = tl.zeros([M, BD], tl.float32)
            if KINDS[b] > 0:
                centred = tl.load(at + offset, mask=inside, other=0.0).to(tl.float32)
                if KINDS[b] == 2 and not RELU:
                    mean = tl.load(statistics[b] + d, mask=d_inside, other=0.0)
                centred -= mean[None, :]
                # Registers: the gradient must not be there before the mean is done with.
                tl.debug_barrier()
            g = tl.load(gradient + start * channels + offset, mask=inside, other=0.0).to(tl.float32)
            if KINDS[b] > 0:
                if RELU:
                    g = tl.where(slope[None, :] * centred + shift[None, :] <= 0.0, 0.0, g)
                sum_gz += g * centred
            sum_g += g
        target = partial + (part * len(zs) + b) * 2 * channels + d
        tl.store(target, tl.sum(sum_g, 0), mask=d_inside)
        second = tl.sum(sum_gz, 0)
        if KINDS[b] == 2:
            _, inverse, _ = norm_slope(statistics[b], scales[b], d, d_inside, channels, epsilons[b])
            second *= inverse
        tl.store(target + channels, second, mask=d_inside)


@triton.jit
def _accumulate(
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
    dx,
    pixels,
    groups,
    V: tl.constexpr,
    MODE: tl.constexpr,
    UP_RELU: tl.constexpr,
    GATED: tl.constexpr,
    ADD: tl.constexpr,
    M: tl.constexpr,
    BD: tl.constexpr,
):
    channels = groups * V
    start = tl.program_id(0).to(tl.int64) * M
    pixel = tl.arange(0, M)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    d_inside = d < channels
    inside = (pixel < pixels - start)[:, None] & d_inside[None, :]
    offset = pixel[:, None] * channels + d[None, :]
    gate = gate_value(gates, branch, GATED)
    dz = upstream(
        gradient + start * channels, z + start * channels, offset, inside, d, d_inside, channels,
        statistics, scale, shift, sums, gate, epsilon, inverse_count, MODE, UP_RELU,
    )  # fmt: skip
    dx += start * channels
    if ADD:
        dz += tl.load(dx + offset, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx + offset, dz.to(dx.dtype.element_ty), mask=inside)


def config(channels: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Return pixels and channels of a block, and warps: a 128-bit vector or two for each thread."""
    across = power_of_two(channels, 1, 64)
    elements = 1024 if dtype.itemsize == 2 else 512
    return max(elements // across, 1), across, 4


def combine(
    zs: Sequence[Tensor], norms: Sequence[Norm | None], gates: Tensor | None, relu: bool
) -> Tensor:
    """See `Backend.combine`: one launch."""
    first = zs[0]
    n, channels, height, width = first.shape
    y = image(first, channels, height, width)
    pixels = n * height * width
    block, across, warps = config(channels, first.dtype)
    launch(
        _combine,
        "elementwise",
        (blocks(pixels, block), blocks(channels, across)),
        first,
        (
            tuple(zs),
            *_norm_tuples(zs, norms),
            first if gates is None else gates,
            y,
            pixels,
            channels // vector(channels),
        ),
        num_warps=warps,
        num_stages=1,
        traffic=lambda: _traffic(first, len(zs) + 1),
        V=vector(channels),
        NORMS=tuple(norm is not None for norm in norms),
        GATED=gates is not None,
        RELU=relu,
        M=block,
        BD=across,
    )
    return y


def combine_backward(
    gradient: Tensor,
    zs: Sequence[Tensor | None],
    norms: Sequence[Norm | None],
    relu: bool,
) -> Tensor:
    """See `Backend.combine_backward`: two launches."""
    n, channels, height, width = gradient.shape
    pixels = n * height * width
    if pixels == 0:
        return zeros(gradient, len(zs), 2, channels)
    block, across, warps = config(channels, gradient.dtype)
    rounds = blocks(blocks(pixels, block), PROGRAMS)
    parts = blocks(pixels, block * rounds)
    partial = floats(gradient, parts, len(zs), 2, channels)
    given = [gradient if z is None else z for z in zs]
    kinds = [
        0 if z is None else 1 if norm is None else 2 for z, norm in zip(zs, norms, strict=True)
    ]
    launch(
        _combine_backward,
        "elementwise",
        (parts, blocks(channels, across)),
        gradient,
        (
            gradient,
            tuple(given),
            *_norm_tuples(given, norms),
            partial,
            pixels,
            channels // vector(channels),
            rounds,
        ),
        num_warps=warps,
        num_stages=1,
        traffic=lambda: _traffic(gradient, 1 + sum(kind > 0 for kind in kinds)),
        V=vector(channels),
        KINDS=tuple(kinds),
        RELU=relu,
        M=block,
        BD=across,
    )
    return sum_partials(partial, (len(zs), 2, channels), torch.float32)


def accumulate(up: Upstream, dx: Tensor, add: bool) -> None:
    """See `Backend.accumulate`: one launch."""
    n, channels, height, width = dx.shape
    pixels = n * height * width
    block, across, warps = config(channels, dx.dtype)
    launch(
        _accumulate,
        "elementwise",
        (blocks(pixels, block), blocks(channels, across)),
        dx,
        (*upstream_args(up), dx, pixels, channels // vector(channels)),
        num_warps=warps,
        num_stages=1,
        traffic=lambda: _traffic(dx, upstream_reads(up) + 1 + add),
        V=vector(channels),
        **upstream_meta(up),
        ADD=add,
        M=block,
        BD=across,
    )


def _norm_tuples(
    zs: Sequence[Tensor], norms: Sequence[Norm | None]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...], tuple[float, ...]]:
    pairs = list(zip(zs, norms, strict=True))
    return (
        tuple(z if norm is None else norm.statistics for z, norm in pairs),
        tuple(z if norm is None else norm.scale for z, norm in pairs),
        tuple(z if norm is None else norm.shift for z, norm in pairs),
        tuple(0.0 if norm is None else norm.epsilon for norm in norms),
    )


def _traffic(like: Tensor, passes: int) -> Traffic:
    total = like.numel() * like.element_size() * passes
    return Traffic(total, total)


def _sample(dtype: torch.dtype) -> tuple[list[Tensor], list[Norm | None], Tensor]:
    channels = 64
    z = torch.empty(64, channels, 16, 16, dtype=dtype, device="meta").contiguous(
        memory_format=torch.channels_last
    )
    norm = Norm(floats(z, 2, channels), z.new_empty(channels), z.new_empty(channels), 1e-5, True)
    return [z] * 7, [norm] * 6 + [None], floats(z, 7)


def _run_combine(dtype: torch.dtype) -> Tensor:
    zs, norms, gates = _sample(dtype)
    return combine(zs, norms, gates, False)


def _run_backward(dtype: torch.dtype) -> Tensor:
    zs, norms, _ = _sample(dtype)
    return combine_backward(zs[0], zs, norms, False)


def _run_accumulate(dtype: torch.dtype) -> None:
    zs, norms, gates = _sample(dtype)
    up = Upstream(zs[0], zs[0], norms[0], floats(gates, 2, 64), gates, 0)
    accumulate(up, zs[0], True)


KERNELS: list[KernelSpec] = [
    KernelSpec("gated sum of 7", "elementwise", _run_combine, kernel="combine"),
    KernelSpec("gated sum, backward", "elementwise", _run_backward, kernel="combine_backward"),
    KernelSpec("identity, backward", "elementwise", _run_accumulate, kernel="accumulate"),
]
