"""Kernels of the separable convolution; `separable.py` launches them."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import triton
import triton.language as tl

from hwnas.kernels.triton._device import (
    gate_value,
    norm_slope,
    store_partial_statistics,
    sum_rows,
    tile_pixels,
    upstream,
)


@triton.jit
def rectified(x, row, column, c, c_inside, H, W, channels, mean, slope, shift, NORM: tl.constexpr):
    """Return ``relu(norm(x))`` `[M, C]` at some pixels of an image, 0 in the padding."""
    inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
    seen = inside[:, None] & c_inside[None, :]
    offset = (row * W + column)[:, None] * channels + c[None, :]
    u = tl.load(x + offset, mask=seen, other=0.0).to(tl.float32)
    if NORM:
        u = slope[None, :] * (u - mean[None, :]) + shift[None, :]
        u = tl.where(seen, u, 0.0)
    return tl.where(u < 0.0, 0.0, u)


@triton.jit
def separable_forward(
    x,
    statistics,
    scale,
    shift,
    epsilon,
    depthwise,
    pointwise,
    z,
    partial,
    counts,
    H,
    W,
    P,
    Q,
    tiles_h,
    tiles_w,
    groups_c,
    groups_d,
    VC: tl.constexpr,
    VD: tl.constexpr,
    NORM: tl.constexpr,
    STATISTICS: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    BC: tl.constexpr,
    BD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute a tile of z: the depthwise convolution in registers, channels block by block."""
    in_channels = groups_c * VC
    out_channels = groups_d * VD
    part = tl.program_id(0)
    image, p, q = tile_pixels(part, tiles_h, tiles_w, BH, BW)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    d_inside = d < out_channels
    x += image * H * W * in_channels
    row = p * STRIDE - DILATION * (K - 1) // 2
    column = q * STRIDE - DILATION * (K - 1) // 2
    acc = tl.zeros([BH * BW, BD], tl.float32)
    for start in range(0, in_channels, BC):
        c = start + tl.arange(0, BC)
        c_inside = c < in_channels
        mean = tl.zeros([BC], tl.float32)
        slope = mean
        offset = mean
        if NORM:
            mean, inverse, factor = norm_slope(statistics, scale, c, c_inside, in_channels, epsilon)
            slope = factor * inverse
            offset = tl.load(shift + c, mask=c_inside, other=0.0).to(tl.float32)
        h = tl.zeros([BH * BW, BC], tl.float32)
        for tap in range(K * K):
            u = rectified(
                x, row + tap // K * DILATION, column + tap % K * DILATION, c, c_inside, H, W,
                in_channels, mean, slope, offset, NORM,
            )  # fmt: skip
            weight = tl.load(depthwise + c * K * K + tap, mask=c_inside, other=0.0)
            h += u * weight.to(tl.float32)[None, :]
        at = d[None, :] * in_channels + c[:, None]
        matrix = tl.load(pointwise + at, mask=d_inside[None, :] & c_inside[:, None], other=0.0)
        kind = x.dtype.element_ty
        acc = tl.dot(h.to(kind), matrix.to(kind), acc, input_precision=PRECISION)
    inside = (p < P) & (q < Q)
    value = acc.to(z.dtype.element_ty)
    at = (p * Q + q)[:, None] * out_channels + d[None, :]
    tl.store(z + image * P * Q * out_channels + at, value, mask=inside[:, None] & d_inside[None, :])
    if STATISTICS:
        store_partial_statistics(
            value.to(tl.float32), inside, d, d_inside, partial, counts, part, out_channels
        )


@triton.jit
def separable_backward(
    gradient,
    z,
    up_statistics,
    up_scale,
    up_shift,
    up_epsilon,
    up_sums,
    inverse_count,
    gates,
    branch,
    x,
    statistics,
    scale,
    shift,
    epsilon,
    depthwise,
    pointwise,
    dh,
    partial,
    sums,
    H,
    W,
    P,
    Q,
    tiles_h,
    tiles_w,
    tiles,
    groups_c,
    groups_d,
    VC: tl.constexpr,
    VD: tl.constexpr,
    MODE: tl.constexpr,
    UP_RELU: tl.constexpr,
    GATED: tl.constexpr,
    NORM: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    BC: tl.constexpr,
    BD: tl.constexpr,
    BK: tl.constexpr,
    TAPS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the depthwise result's gradient `dh`, and this program's part of both weights'.

    A part is `[D * C + C * K * K]`. The forward pass's depthwise convolution is computed again.
    Programs of axis 2 other than the first only contribute their rows of the pointwise gradient.
    """
    in_channels = groups_c * VC
    out_channels = groups_d * VD
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    c_inside = c < in_channels
    own = tl.program_id(2)
    d = own * BD + tl.arange(0, BD)
    d_inside = d < out_channels
    kind = x.dtype.element_ty
    gate = gate_value(gates, branch, GATED)
    mean = tl.zeros([BC], tl.float32)
    slope = mean
    offset = mean
    if NORM:
        mean, inverse, factor = norm_slope(statistics, scale, c, c_inside, in_channels, epsilon)
        slope = factor * inverse
        offset = tl.load(shift + c, mask=c_inside, other=0.0).to(tl.float32)
        if (tl.program_id(0) == 0) & (own == 0):
            # The next launch adds to them.
            tl.store(sums + c, tl.zeros([BC], tl.float32), mask=c_inside)
            tl.store(sums + in_channels + c, tl.zeros([BC], tl.float32), mask=c_inside)
    taps = tl.arange(0, TAPS)
    d_depthwise = tl.zeros([TAPS, BC], tl.float32)
    d_pointwise = tl.zeros([BD, BC], tl.float32)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        image, p, q = tile_pixels(tile, tiles_h, tiles_w, BH, BW)
        inside = (p < P) & (q < Q)
        pixel = (p * Q + q)[:, None]
        behind = image * P * Q
        g = gradient + behind * out_channels
        values = z + behind * out_channels
        down = tl.zeros([BH * BW, BC], tl.float32)
        for begin in range(0, out_channels, BK):
            other = begin + tl.arange(0, BK)
            o_inside = other < out_channels
            dz = upstream(
                g, values, pixel * out_channels + other[None, :],
                inside[:, None] & o_inside[None, :], other, o_inside, out_channels,
                up_statistics, up_scale, up_shift, up_sums, gate, up_epsilon, inverse_count,
                MODE, UP_RELU,
            )  # fmt: skip
            at = other[:, None] * in_channels + c[None, :]
            matrix = tl.load(pointwise + at, mask=o_inside[:, None] & c_inside[None, :], other=0.0)
            down = tl.dot(dz.to(kind), matrix.to(kind), down, input_precision=PRECISION)
        if own == 0:
            scratch = dh + behind * in_channels + pixel * in_channels + c[None, :]
            tl.store(scratch, down.to(kind), mask=inside[:, None] & c_inside[None, :])
        row = p * STRIDE - DILATION * (K - 1) // 2
        column = q * STRIDE - DILATION * (K - 1) // 2
        source = x + image * H * W * in_channels
        h = tl.zeros([BH * BW, BC], tl.float32)
        for tap in range(K * K):
            u = rectified(
                source, row + tap // K * DILATION, column + tap % K * DILATION, c, c_inside, H, W,
                in_channels, mean, slope, offset, NORM,
            )  # fmt: skip
            weight = tl.load(depthwise + c * K * K + tap, mask=c_inside, other=0.0)
            h += u * weight.to(tl.float32)[None, :]
            found = tl.sum(u * down, 0)
            d_depthwise += tl.where((taps == tap)[:, None], found[None, :], 0.0)
        # Once more, from the L1 cache: there are no registers to keep it in meanwhile.
        again = upstream(
            g, values, pixel * out_channels + d[None, :], inside[:, None] & d_inside[None, :], d,
            d_inside, out_channels, up_statistics, up_scale, up_shift, up_sums, gate, up_epsilon,
            inverse_count, MODE, UP_RELU,
        )  # fmt: skip
        left = tl.trans(again.to(kind))
        d_pointwise = tl.dot(left, h.to(kind), d_pointwise, input_precision=PRECISION)
    target = partial + tl.program_id(0).to(tl.int64) * (out_channels + K * K) * in_channels
    seen = d_inside[:, None] & c_inside[None, :]
    tl.store(target + d[:, None] * in_channels + c[None, :], d_pointwise, mask=seen)
    if own == 0:
        place = out_channels * in_channels + c[None, :] * (K * K) + taps[:, None]
        tl.store(target + place, d_depthwise, mask=(taps < K * K)[:, None] & c_inside[None, :])


@triton.jit
def _sum_weights(
    partial,
    d_pointwise,
    d_depthwise,
    block,
    parts,
    pointwise_size,
    depthwise_size,
    ROWS: tl.constexpr,
    LENGTH: tl.constexpr,
):
    """Sum the partial gradients of a block of weights."""
    width = pointwise_size + depthwise_size
    at = block * LENGTH + tl.arange(0, LENGTH)
    total = sum_rows(partial, at, at < width, parts, width, ROWS, LENGTH)
    kind = d_pointwise.dtype.element_ty
    tl.store(d_pointwise + at, total.to(kind), mask=at < pointwise_size)
    last = (at >= pointwise_size) & (at < width)
    tl.store(d_depthwise + at - pointwise_size, total.to(kind), mask=last)


@triton.jit
def separable_input(
    dh,
    x,
    statistics,
    scale,
    shift,
    epsilon,
    depthwise,
    dx,
    sums,
    partial,
    d_pointwise,
    d_depthwise,
    H,
    W,
    P,
    Q,
    tiles_h,
    tiles_w,
    tiles,
    blocks_c,
    parts,
    groups_c,
    out_channels,
    taps,
    VC: tl.constexpr,
    NORM: tl.constexpr,
    ADD: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    BC: tl.constexpr,
    ROWS: tl.constexpr,
    LENGTH: tl.constexpr,
):
    """Write a tile of dx; the programs behind the last tile sum the weights' partial gradients."""
    in_channels = groups_c * VC
    program = tl.program_id(0)
    if program >= tiles * blocks_c:
        part = program - tiles * blocks_c
        _sum_weights(
            partial, d_pointwise, d_depthwise, part, parts, out_channels * in_channels,
            K * K * in_channels, ROWS, LENGTH,
        )  # fmt: skip
    else:
        image, h, w = tile_pixels(program // blocks_c, tiles_h, tiles_w, BH, BW)
        c = (program % blocks_c) * BC + tl.arange(0, BC)
        c_inside = c < in_channels
        source = dh + image * P * Q * in_channels
        total = tl.zeros([BH * BW, BC], tl.float32)
        # How many taps there are is not told to the compiler: it would unroll, and spill.
        for tap in range(taps):
            row = h + DILATION * (K - 1) // 2 - tap // K * DILATION
            column = w + DILATION * (K - 1) // 2 - tap % K * DILATION
            p = row // STRIDE
            q = column // STRIDE
            hit = (row >= 0) & (p < P) & (row % STRIDE == 0)
            hit = hit & (column >= 0) & (q < Q) & (column % STRIDE == 0)
            g = tl.load(
                source + (p * Q + q)[:, None] * in_channels + c[None, :],
                mask=hit[:, None] & c_inside[None, :],
                other=0.0,
            )
            weight = tl.load(depthwise + c * K * K + tap, mask=c_inside, other=0.0)
            total += g.to(tl.float32) * weight.to(tl.float32)[None, :]
        inside = ((h < H) & (w < W))[:, None] & c_inside[None, :]
        at = (h * W + w)[:, None] * in_channels + c[None, :]
        base = image * H * W * in_channels
        value = tl.load(x + base + at, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            mean, inverse, factor = norm_slope(statistics, scale, c, c_inside, in_channels, epsilon)
            offset = tl.load(shift + c, mask=c_inside, other=0.0).to(tl.float32)
            value = (value - mean[None, :]) * inverse[None, :]
            total = tl.where(factor[None, :] * value + offset[None, :] <= 0.0, 0.0, total)
            total = tl.where(inside, total, 0.0)
            tl.atomic_add(sums + c, tl.sum(total, 0), mask=c_inside, sem="relaxed")
            second = tl.sum(total * value, 0)
            tl.atomic_add(sums + in_channels + c, second, mask=c_inside, sem="relaxed")
        else:
            total = tl.where(value <= 0.0, 0.0, total)
        if ADD:
            total += tl.load(dx + base + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + base + at, total.to(dx.dtype.element_ty), mask=inside)
