"""Kernels of dense convolutions as matrix products; `conv.py` and `reduction.py` launch them.

A factorised reduction is two convolutions, its HALVES: axis 2 of the grid tells which, and the
second sees the input shifted by one row and one column.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import triton
import triton.language as tl

from hwnas.kernels.triton._device import (
    gate_value,
    store_partial_statistics,
    tile_pixels,
    upstream,
)


@triton.jit
def _input_tile(x, row, column, c, c_inside, H, W, channels, RELU: tl.constexpr):
    """Return ``[relu](x)`` `[M, C]` at some pixels of an image, 0 in the padding."""
    inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
    at = (row * W + column)[:, None] * channels + c[None, :]
    u = tl.load(x + at, mask=inside[:, None] & c_inside[None, :], other=0.0)
    if RELU:
        u = tl.where(u < 0.0, 0.0, u)
    return u


@triton.jit
def conv_forward(
    xs,
    weight,
    weight_odd,
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
    stride_d,
    stride_c,
    stride_tap,
    VC: tl.constexpr,
    VD: tl.constexpr,
    RELU: tl.constexpr,
    STATISTICS: tl.constexpr,
    HALVES: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    BC: tl.constexpr,
    BD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute a tile of z; `stride_d` counts groups of VC."""
    own_channels = groups_d * VD
    out_channels = own_channels * HALVES
    half = tl.program_id(2)
    if HALVES == 2:  # noqa: SIM102 - one is for the compiler, one for the GPU
        if half == 1:
            weight = weight_odd
    part = tl.program_id(0)
    image, p, q = tile_pixels(part, tiles_h, tiles_w, BH, BW)
    own = tl.program_id(1) * BD + tl.arange(0, BD)
    d_inside = own < own_channels
    top = p * STRIDE - DILATION * (K - 1) // 2 + half
    left = q * STRIDE - DILATION * (K - 1) // 2 + half
    acc = tl.zeros([BH * BW, BD], tl.float32)
    behind = 0
    for b in tl.static_range(len(xs)):
        channels = groups_c[b] * VC
        x = xs[b] + image * H * W * channels
        for tap in range(K * K):
            row = top + tap // K * DILATION
            column = left + tap % K * DILATION
            for start in range(0, channels, BC):
                c = start + tl.arange(0, BC)
                c_inside = c < channels
                u = _input_tile(x, row, column, c, c_inside, H, W, channels, RELU)
                at = own[None, :] * (stride_d * VC) + (behind + c)[:, None] * stride_c
                matrix = tl.load(
                    weight + at + tap * stride_tap,
                    mask=d_inside[None, :] & c_inside[:, None],
                    other=0.0,
                )
                acc = tl.dot(u, matrix.to(u.dtype), acc, input_precision=PRECISION)
        behind += channels
    inside = (p < P) & (q < Q)
    d = half * own_channels + own
    value = acc.to(z.dtype.element_ty)
    at = (p * Q + q)[:, None] * out_channels + d[None, :]
    tl.store(z + image * P * Q * out_channels + at, value, mask=inside[:, None] & d_inside[None, :])
    if STATISTICS:
        store_partial_statistics(
            value.to(tl.float32), inside, d, d_inside, partial, counts, part, out_channels
        )


@triton.jit
def conv_input(
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
    x,
    weight,
    dx,
    H,
    W,
    P,
    Q,
    tiles_h,
    tiles_w,
    groups_c,
    groups_d,
    stride_d,
    stride_c,
    stride_tap,
    VC: tl.constexpr,
    VD: tl.constexpr,
    MODE: tl.constexpr,
    UP_RELU: tl.constexpr,
    GATED: tl.constexpr,
    RELU: tl.constexpr,
    ADD: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    BC: tl.constexpr,
    BD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write a tile of dx; `weight` points at the first channel of x."""
    in_channels = groups_c * VC
    out_channels = groups_d * VD
    image, h, w = tile_pixels(tl.program_id(0), tiles_h, tiles_w, BH, BW)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    c_inside = c < in_channels
    gate = gate_value(gates, branch, GATED)
    base = image * P * Q * out_channels
    kind = x.dtype.element_ty
    acc = tl.zeros([BH * BW, BC], tl.float32)
    for tap in range(K * K):
        row = h + DILATION * (K - 1) // 2 - tap // K * DILATION
        column = w + DILATION * (K - 1) // 2 - tap % K * DILATION
        p = row // STRIDE
        q = column // STRIDE
        hit = (row >= 0) & (p < P) & (row % STRIDE == 0)
        hit = hit & (column >= 0) & (q < Q) & (column % STRIDE == 0)
        for start in range(0, out_channels, BD):
            d = start + tl.arange(0, BD)
            d_inside = d < out_channels
            dz = upstream(
                gradient + base, z + base, (p * Q + q)[:, None] * out_channels + d[None, :],
                hit[:, None] & d_inside[None, :], d, d_inside, out_channels, statistics, scale,
                shift, sums, gate, epsilon, inverse_count, MODE, UP_RELU,
            ).to(kind)  # fmt: skip
            at = d[:, None] * (stride_d * VC) + c[None, :] * stride_c + tap * stride_tap
            matrix = tl.load(weight + at, mask=d_inside[:, None] & c_inside[None, :], other=0.0)
            acc = tl.dot(dz, matrix.to(kind), acc, input_precision=PRECISION)
    inside = ((h < H) & (w < W))[:, None] & c_inside[None, :]
    at = (h * W + w)[:, None] * in_channels + c[None, :]
    base = image * H * W * in_channels
    if RELU:
        value = tl.load(x + base + at, mask=inside, other=0.0)
        acc = tl.where(value <= 0.0, 0.0, acc)
    if ADD:
        acc += tl.load(dx + base + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx + base + at, acc.to(kind), mask=inside)


@triton.jit
def conv_weight(
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
    x,
    partial,
    H,
    W,
    P,
    Q,
    tiles_h,
    tiles_w,
    tiles,
    blocks_c,
    width,
    groups_c,
    groups_d,
    VC: tl.constexpr,
    VD: tl.constexpr,
    MODE: tl.constexpr,
    UP_RELU: tl.constexpr,
    GATED: tl.constexpr,
    RELU: tl.constexpr,
    HALVES: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    BC: tl.constexpr,
    BD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write a part of the weight's gradient: one tap, a block of channels, some of the tiles.

    `partial` points at the first channel of x in `[HALVES, parts, D, width, K, K]`.
    """
    in_channels = groups_c * VC
    own_channels = groups_d * VD
    out_channels = own_channels * HALVES
    half = tl.program_id(2) % HALVES
    own = tl.program_id(2) // HALVES * BD + tl.arange(0, BD)
    own_inside = own < own_channels
    d = half * own_channels + own
    tap = tl.program_id(1) // blocks_c
    c = tl.program_id(1) % blocks_c * BC + tl.arange(0, BC)
    c_inside = c < in_channels
    gate = gate_value(gates, branch, GATED)
    kind = x.dtype.element_ty
    acc = tl.zeros([BD, BC], tl.float32)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        image, p, q = tile_pixels(tile, tiles_h, tiles_w, BH, BW)
        inside = (p < P) & (q < Q)
        base = image * P * Q * out_channels
        dz = upstream(
            gradient + base, z + base, (p * Q + q)[:, None] * out_channels + d[None, :],
            inside[:, None] & own_inside[None, :], d, own_inside, out_channels, statistics,
            scale, shift, sums, gate, epsilon, inverse_count, MODE, UP_RELU,
        )  # fmt: skip
        row = p * STRIDE - DILATION * (K - 1) // 2 + half + tap // K * DILATION
        column = q * STRIDE - DILATION * (K - 1) // 2 + half + tap % K * DILATION
        source = x + image * H * W * in_channels
        u = _input_tile(source, row, column, c, c_inside, H, W, in_channels, RELU)
        acc = tl.dot(tl.trans(dz.to(kind)), u, acc, input_precision=PRECISION)
    part = (half * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
    target = partial + part * own_channels * width * (K * K) + tap
    at = own[:, None] * (width * K * K) + c[None, :] * (K * K)
    tl.store(target + at, acc, mask=own_inside[:, None] & c_inside[None, :])


@triton.jit
def reduction_input(
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
    x,
    even,
    odd,
    dx,
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
    MODE: tl.constexpr,
    UP_RELU: tl.constexpr,
    GATED: tl.constexpr,
    RELU: tl.constexpr,
    ADD: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    BC: tl.constexpr,
    BD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write dx of a tile of 2×2 squares: `even` feeds their first pixel, `odd` their last."""
    in_channels = groups_c * VC
    own_channels = groups_d * VD
    out_channels = own_channels * 2
    image, p, q = tile_pixels(tl.program_id(0), tiles_h, tiles_w, BH, BW)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    c_inside = c < in_channels
    gate = gate_value(gates, branch, GATED)
    base = image * P * Q * out_channels
    kind = x.dtype.element_ty
    inside = (p < P) & (q < Q)
    for half in tl.static_range(2):
        acc = tl.zeros([BH * BW, BC], tl.float32)
        for start in range(0, own_channels, BD):
            own = start + tl.arange(0, BD)
            own_inside = own < own_channels
            d = half * own_channels + own
            dz = upstream(
                gradient + base, z + base, (p * Q + q)[:, None] * out_channels + d[None, :],
                inside[:, None] & own_inside[None, :], d, own_inside, out_channels, statistics,
                scale, shift, sums, gate, epsilon, inverse_count, MODE, UP_RELU,
            ).to(kind)  # fmt: skip
            place = own[:, None] * in_channels + c[None, :]
            wanted = own_inside[:, None] & c_inside[None, :]
            if half == 0:
                matrix = tl.load(even + place, mask=wanted, other=0.0)
            else:
                matrix = tl.load(odd + place, mask=wanted, other=0.0)
            acc = tl.dot(dz, matrix.to(kind), acc, input_precision=PRECISION)
        target = dx + image * H * W * in_channels
        row = p * 2 + half
        column = q * 2 + half
        seen = (inside & (row < H) & (column < W))[:, None] & c_inside[None, :]
        at = (row * W + column)[:, None] * in_channels + c[None, :]
        if RELU:
            value = tl.load(x + image * H * W * in_channels + at, mask=seen, other=0.0)
            acc = tl.where(value <= 0.0, 0.0, acc)
        if ADD:
            acc += tl.load(target + at, mask=seen, other=0.0).to(tl.float32)
        tl.store(target + at, acc.to(kind), mask=seen)
        if not ADD:
            # The square's other two pixels: right of the first, and left of the last.
            column = q * 2 + 1 - half
            seen = (inside & (row < H) & (column < W))[:, None] & c_inside[None, :]
            at = (row * W + column)[:, None] * in_channels + c[None, :]
            tl.store(target + at, tl.zeros([BH * BW, BC], kind), mask=seen)
