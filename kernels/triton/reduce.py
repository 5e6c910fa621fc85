"""Kernels that put partial results together: the second launch of a stage."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from hwnas.kernels.triton._device import sum_rows
from hwnas.kernels.triton._host import blocks, floats, power_of_two
from hwnas.kernels.triton._spec import KernelSpec, Traffic, launch

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def _merge_statistics(
    partial, counts, statistics, parts, channels, PARTS: tl.constexpr, BD: tl.constexpr
):
    """Merge the means and squared deviations of all parts, in float64 and in a fixed order."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    d_inside = d < channels
    part = tl.arange(0, PARTS)
    total = tl.zeros([BD], tl.float64)
    number = tl.zeros([1], tl.float64)
    for start in range(0, parts, PARTS):
        seen = (start + part) < parts
        count = tl.load(counts + start + part, mask=seen, other=0.0).to(tl.float64)
        at = (start + part).to(tl.int64)[:, None] * 2 * channels + d[None, :]
        mean = tl.load(partial + at, mask=seen[:, None] & d_inside[None, :], other=0.0)
        total += tl.sum(count[:, None] * mean.to(tl.float64), 0)
        number += tl.sum(count, 0)
    middle = total / number
    spread = tl.zeros([BD], tl.float64)
    for start in range(0, parts, PARTS):
        seen = (start + part) < parts
        count = tl.load(counts + start + part, mask=seen, other=0.0).to(tl.float64)
        at = (start + part).to(tl.int64)[:, None] * 2 * channels + d[None, :]
        wanted = seen[:, None] & d_inside[None, :]
        away = tl.load(partial + at, mask=wanted, other=0.0).to(tl.float64) - middle[None, :]
        own = tl.load(partial + at + channels, mask=wanted, other=0.0).to(tl.float64)
        spread += tl.sum(own + count[:, None] * away * away, 0)
    variance = tl.maximum(spread / number, 0.0)
    tl.store(statistics + d, middle.to(tl.float32), mask=d_inside)
    tl.store(statistics + channels + d, variance.to(tl.float32), mask=d_inside)


@triton.jit
def _sum_partials(partial, out, rows, width, ROWS: tl.constexpr, LENGTH: tl.constexpr):
    """Sum `[rows, width]` over its rows."""
    column = tl.program_id(0) * LENGTH + tl.arange(0, LENGTH)
    inside = column < width
    total = sum_rows(partial, column, inside, rows, width, ROWS, LENGTH)
    tl.store(out + column, total.to(out.dtype.element_ty), mask=inside)


def merge_statistics(partial: Tensor, counts: Tensor) -> Tensor:
    """Return the mean and the biased variance of a batch.

    Args:
        partial: `[parts, 2, D]` mean and sum of squared deviations of each part.
        counts: `[parts]` number of pixels of each part, at least 1.

    Returns:
        `[2, D]`.
    """
    parts, _, channels = partial.shape
    statistics = floats(partial, 2, channels)
    if parts == 0:
        return statistics.zero_()
    block = power_of_two(channels, 1, 8)
    launch(
        _merge_statistics,
        "elementwise",
        (blocks(channels, block),),
        partial,
        (partial, counts, statistics, parts, channels),
        num_warps=8,
        num_stages=1,
        traffic=lambda: _once(partial, counts, statistics),
        PARTS=power_of_two(parts, 1, 64),
        BD=block,
    )
    return statistics


def sum_partials(partial: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return the sum of a `[rows, ...]` float32 tensor over its rows, of some shape and dtype."""
    rows = partial.shape[0]
    out = torch.empty(shape, dtype=dtype, device=partial.device)
    width = out.numel()
    if rows == 0:
        return out.zero_()
    length = power_of_two(width, 1, 32)
    launch(
        _sum_partials,
        "elementwise",
        (blocks(width, length),),
        partial,
        (partial, out, rows, width),
        num_warps=4,
        num_stages=1,
        traffic=lambda: _once(partial, out),
        ROWS=power_of_two(rows, 1, 32),
        LENGTH=length,
    )
    return out


def _once(*tensors: Tensor) -> Traffic:
    total = sum(each.numel() * each.element_size() for each in tensors)
    return Traffic(total, total)


def _merge_sample(dtype: torch.dtype) -> Tensor:
    like = torch.empty(0, dtype=dtype, device="meta")
    return merge_statistics(floats(like, 512, 2, 64), floats(like, 512))


def _sum_sample(dtype: torch.dtype) -> Tensor:
    like = torch.empty(0, dtype=dtype, device="meta")
    return sum_partials(floats(like, 264, 64 * 64), (64, 64, 1, 1), dtype)


KERNELS: list[KernelSpec] = [
    KernelSpec("statistics, merged", "elementwise", _merge_sample, (torch.float32,)),
    KernelSpec("partial sums", "elementwise", _sum_sample),
]
