"""Kernels of the recurrent cell's nodes; `rnn.py` launches them.

The table that they read is that of `_Schedule` in `rnn.py`: 4 numbers for each wave and cell, 7 for
each slot, 4 for each reader of a state.
"""

# Kernel arguments are device values, which no Python annotation describes.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import triton
import triton.language as tl

#: Arguments whose values differ between architectures: one compiled kernel serves all.
NOT_SPECIAL = ("span_at", "item_at", "target_at", "t", "steps", "batch", "root", "units")


@triton.jit
def _sigmoid(x):
    small = tl.exp(-tl.abs(x))
    y = 1.0 / (1.0 + small)
    return tl.where(x < 0, small * y, y)


@triton.jit
def _tanh(x):
    small = tl.exp(-2.0 * tl.abs(x))
    y = 1.0 - 2.0 * small / (1.0 + small)
    y = tl.where(x < 0, -y, y)
    # Near 0 that would cancel: a minimax polynomial instead (Cephes' tanhf).
    square = x * x
    series = 2.06390887954e-2 - 5.70498872745e-3 * square
    series = 1.33314422036e-1 + square * (-5.37397155531e-2 + square * series)
    series = x + x * square * (-3.33332819422e-1 + square * series)
    return tl.where(tl.abs(x) < 0.625, series, y)


@triton.jit
def _activate(x, kind):
    """Return tanh, ReLU, the identity or the sigmoid of x for the scalar kind 0, 1, 2 or 3."""
    # A branch: every thread takes the same one, and its registers are free again behind it.
    y = x
    if kind == 0:
        y = _tanh(x)
    elif kind == 1:
        y = tl.where(x < 0, 0.0, x)
    elif kind == 3:
        y = _sigmoid(x)
    return y


@triton.jit
def _slope(x, y, kind):
    """Return the derivative of `_activate` at x, where its value is y."""
    slope = tl.full(x.shape, 1.0, tl.float32)
    if kind == 0:
        slope = 1.0 - y * y
    elif kind == 1:
        slope = tl.where(x <= 0, 0.0, 1.0)
    elif kind == 3:
        slope = y * (1.0 - y)
    return slope


@triton.jit(do_not_specialize=NOT_SPECIAL)
def node_forward(
    pre,
    states,
    output,
    leaf_sum,
    table,
    span_at,
    item_at,
    target_at,
    t,
    steps,
    batch,
    root,
    units,
    UNIT: tl.constexpr,
    CARRY_LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    line = tl.program_id(0)
    lines = tl.num_programs(0)
    width = units * UNIT
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    span = table + span_at + 4 * (line // batch)
    flags = tl.load(span + 2)
    here = line.to(tl.int64) * width + column
    total = tl.zeros([BLOCK], tl.float32)
    if flags & 1:
        total = tl.load(leaf_sum + here, mask=inside, other=0.0)
    for number in tl.range(tl.load(span), tl.load(span + 1), disable_licm=True):
        item = table + item_at + 7 * number
        slot = tl.load(item) * steps + t * tl.load(item + 1) + tl.load(item + 2)
        row = slot.to(tl.int64) * batch + line % batch
        gate = tl.load(pre + row * 2 * width + column, mask=inside, other=0.0)
        gate = _sigmoid(gate.to(tl.float32))
        # One operand after the other: all at once would not fit the registers.
        tl.debug_barrier()
        node = tl.load(pre + (row * 2 + 1) * width + column, mask=inside, other=0.0)
        node = _activate(node.to(tl.float32), tl.load(item + 3))
        tl.debug_barrier()
        before = tl.load(states + row * width + column, mask=inside, other=0.0)
        before = before.to(tl.float32)
        state = before + gate * (node - before)
        total = tl.where(tl.load(item + 4) != 0, total + state, total)
        for reader in range(tl.load(item + 5), tl.load(item + 6)):
            target = table + target_at + 4 * reader
            step = (t + tl.load(target + 3)) * tl.load(target + 1)
            slot = tl.load(target) * steps + step + tl.load(target + 2)
            row = slot.to(tl.int64) * batch + line % batch
            value = state.to(states.dtype.element_ty)
            tl.store(states + row * width + column, value, mask=inside)
    if flags & 2:
        tl.store(leaf_sum + here, total, mask=inside)
    elif flags & 4:
        mean = (total / tl.load(span + 3).to(tl.float32)).to(output.dtype.element_ty)
        row = t.to(tl.int64) * lines + line
        tl.store(output + row * width + column, mean, mask=inside)
        if not CARRY_LAST:
            row = (root * steps).to(tl.int64) * batch + (t + 1).to(tl.int64) * lines + line
            tl.store(states + row * width + column, mean, mask=inside)


@triton.jit(do_not_specialize=NOT_SPECIAL)
def node_backward(
    pre,
    states,
    d_output,
    d_pre,
    d_states,
    table,
    span_at,
    item_at,
    target_at,
    t,
    steps,
    batch,
    root,
    units,
    UNIT: tl.constexpr,
    CARRY_LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    line = tl.program_id(0)
    lines = tl.num_programs(0)
    width = units * UNIT
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    kept = d_pre.dtype.element_ty
    span = table + span_at + 4 * (line // batch)
    leaves = tl.load(span + 3).to(tl.float32)
    for number in tl.range(tl.load(span), tl.load(span + 1), disable_licm=True):
        item = table + item_at + 7 * number
        first = tl.load(item)
        place = tl.load(item + 2)
        kind = tl.load(item + 3)
        d_state = tl.zeros([BLOCK], tl.float32)
        if tl.load(item + 4) != 0:
            row = t.to(tl.int64) * lines + line
            d_mean = tl.load(d_output + row * width + column, mask=inside, other=0.0)
            d_state = d_mean.to(tl.float32)
            if not CARRY_LAST:
                row = root.to(tl.int64) * batch + line
                carried = tl.load(d_states + row * width + column, mask=inside, other=0.0)
                d_state += carried.to(tl.float32)
            d_state = d_state / leaves
        for reader in range(tl.load(item + 5), tl.load(item + 6)):
            target = table + target_at + 4 * reader
            slot = tl.load(target) + tl.load(target + 2)
            row = slot.to(tl.int64) * batch + line % batch
            d_read = tl.load(d_states + row * width + column, mask=inside, other=0.0)
            d_state += d_read.to(tl.float32)
        slot = first * steps + t * tl.load(item + 1) + place
        row = slot.to(tl.int64) * batch + line % batch
        gate = tl.load(pre + row * 2 * width + column, mask=inside, other=0.0)
        gate = _sigmoid(gate.to(tl.float32))
        past = (d_state * (1.0 - gate)).to(kept)
        past_row = (first + place).to(tl.int64) * batch + line % batch
        tl.store(d_states + past_row * width + column, past, mask=inside)
        d_state *= gate
        tl.debug_barrier()
        x = tl.load(pre + (row * 2 + 1) * width + column, mask=inside, other=0.0).to(tl.float32)
        node = _activate(x, kind)
        d_node = (d_state * _slope(x, node, kind)).to(kept)
        tl.store(d_pre + (row * 2 + 1) * width + column, d_node, mask=inside)
        tl.debug_barrier()
        before = tl.load(states + row * width + column, mask=inside, other=0.0)
        d_gate = d_state * (1.0 - gate) * (node - before.to(tl.float32))
        tl.store(d_pre + row * 2 * width + column, d_gate.to(kept), mask=inside)
