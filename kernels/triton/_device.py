"""What kernels share: tiles of pixels, norms that are applied while reading, sums of partials.

Channel counts arrive as ``groups`` times a compile-time ``V``, the largest power of two up to 16
that divides them: the compiler then knows how far loads are aligned, also where C is 20.
"""

# Kernel arguments are device values, which no Python annotation describes.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def tile_pixels(tile, tiles_h, tiles_w, BH: tl.constexpr, BW: tl.constexpr):
    """Return the image, the rows and the columns `[BH * BW]` of a tile."""
    column = tile % tiles_w
    rest = tile // tiles_w
    row = rest % tiles_h
    pixel = tl.arange(0, BH * BW)
    image = (rest // tiles_h).to(tl.int64)
    return image, row * BH + pixel // BW, column * BW + pixel % BW


@triton.jit
def norm_slope(statistics, scale, c, inside, channels, epsilon):
    """Return mean, 1 / deviation and scale of the channels `c`."""
    mean = tl.load(statistics + c, mask=inside, other=0.0)
    variance = tl.load(statistics + channels + c, mask=inside, other=1.0)
    factor = tl.load(scale + c, mask=inside, other=0.0).to(tl.float32)
    variance += epsilon
    inverse = tl.rsqrt(variance)
    # The instruction is off by up to two units in the last place: one step of Newton's.
    inverse *= 1.5 - 0.5 * variance * inverse * inverse
    return mean, inverse, factor


@triton.jit
def gate_value(gates, branch, GATED: tl.constexpr):
    """Return a gate, which stays on the device."""
    gate = 1.0
    if GATED:
        gate = tl.load(gates + branch).to(tl.float32)
    return gate


@triton.jit
def upstream(
    gradient,
    z,
    offset,
    inside,
    d,
    d_inside,
    channels,
    statistics,
    scale,
    shift,
    sums,
    gate,
    epsilon,
    inverse_count,
    MODE: tl.constexpr,
    RELU: tl.constexpr,
):
    """Return dz of `Upstream` at `[M, D]` offsets, 0 outside.

    MODE is 0 without a norm, 1 for one whose statistics are constants, 2 for the batch's own.
    """
    g = tl.load(gradient + offset, mask=inside, other=0.0).to(tl.float32)
    if MODE == 0:
        if RELU:
            g = tl.where(tl.load(z + offset, mask=inside, other=1.0) <= 0.0, 0.0, g)
        return g * gate
    mean, inverse, factor = norm_slope(statistics, scale, d, d_inside, channels, epsilon)
    slope = factor * inverse
    if MODE == 2 or RELU:
        centred = tl.load(z + offset, mask=inside, other=0.0).to(tl.float32) - mean[None, :]
        if RELU:
            offset_d = tl.load(shift + d, mask=d_inside, other=0.0).to(tl.float32)
            g = tl.where(slope[None, :] * centred + offset_d[None, :] <= 0.0, 0.0, g)
        if MODE == 2:
            first = tl.load(sums + d, mask=d_inside, other=0.0) * inverse_count
            second = tl.load(sums + channels + d, mask=d_inside, other=0.0) * inverse_count
            g = g - first[None, :] - centred * (inverse * second)[None, :]
    return tl.where(inside, g * (gate * slope)[None, :], 0.0)


@triton.jit
def store_partial_statistics(value, inside, d, d_inside, partial, counts, part, channels):
    """Store the mean and the sum of squared deviations of a tile's values `[M, D]`."""
    count = tl.sum(inside.to(tl.float32), 0)
    seen = inside[:, None]
    mean = tl.sum(tl.where(seen, value, 0.0), 0) / count
    # Once more about that mean: takes away what rounding left, also where it is far from 0.
    rest = tl.where(seen, value - mean[None, :], 0.0)
    shift = tl.sum(rest, 0) / count
    spread = tl.sum(rest * rest, 0) - count * shift * shift
    target = partial + part.to(tl.int64) * 2 * channels + d
    tl.store(target, mean + shift, mask=d_inside)
    tl.store(target + channels, spread, mask=d_inside)
    tl.store(counts + part, count)


@triton.jit
def sum_rows(partial, columns, inside, rows, width, ROWS: tl.constexpr, LENGTH: tl.constexpr):
    """Return the sums of `[rows, width]` over its rows at some columns, in a fixed order."""
    total = tl.zeros([LENGTH], tl.float32)
    row = tl.arange(0, ROWS)
    for start in range(0, rows, ROWS):
        at = (start + row).to(tl.int64)[:, None] * width + columns[None, :]
        seen = ((start + row) < rows)[:, None] & inside[None, :]
        total += tl.sum(tl.load(partial + at, mask=seen, other=0.0), 0)
    return total
