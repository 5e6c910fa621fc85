"""The sampled ENAS recurrent cell: GEMMs by torch, everything between two GEMMs in one kernel.

Nodes are run in *waves*: a wave holds the nodes, of all cells, whose inputs the waves before it
have made. Within a wave, nodes that share a matrix form a *group*, and each group is one GEMM. The
kernel then applies gate, activation and highway mix to all nodes of the wave, adds up leaves, and
writes each state once for every node that reads it, to the row where that node's GEMM expects it:
no gather, and the rows of a group lie side by side in every step and over all steps.

A *slot* is a node of a cell; slots are numbered group by group, roots (node 0) last. Row
``(first * T + t * count + place) * B + b`` of the buffers is batch row b of step t of the slot
`place` in a group of `count` slots that starts at slot `first`. Roots have one step more: the
carried states, from the first to the one that is left at the end. Which rows are read and written
and which activation is used is a table on the device: another architecture compiles nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from hwnas.kernels.triton._spec import launch

if TYPE_CHECKING:
    from torch import Tensor

_SPAN, _ITEM, _TARGET = 4, 7, 4
_BEFORE, _AFTER, _HERE = 1, 2, 4
_NOT_SPECIAL = ("span_at", "item_at", "target_at", "t", "steps", "batch", "root", "units")


@triton.jit
def _activate(x, kind):
    """Return tanh, ReLU, the identity or the sigmoid of x for the scalar kind 0, 1, 2 or 3."""
    size = tl.abs(x)
    small = tl.exp(-size * tl.where(kind == 0, 2.0, 1.0))
    inverse = 1.0 / (1.0 + small)
    sigmoid = tl.where(x < 0, small * inverse, inverse)
    tanh = 1.0 - 2.0 * (small * inverse)
    # Near 0 that would cancel: a minimax polynomial instead (Cephes' tanhf).
    square = x * x
    series = 2.06390887954e-2 - 5.70498872745e-3 * square
    series = 1.33314422036e-1 + square * (-5.37397155531e-2 + square * series)
    series = x + x * square * (-3.33332819422e-1 + square * series)
    tanh = tl.where(size < 0.625, series, tl.where(x < 0, -tanh, tanh))
    plain = tl.where((kind == 1) & (x < 0), 0.0, x)
    return tl.where(kind == 0, tanh, tl.where(kind == 3, sigmoid, plain))


@triton.jit
def _slope(x, y, kind):
    """Return the derivative of `_activate` at x, where its value is y."""
    bent = tl.where(kind == 0, 1.0 - y * y, y * (1.0 - y))
    straight = tl.where((kind == 1) & (x <= 0), 0.0, 1.0)
    return tl.where((kind == 0) | (kind == 3), bent, straight)


@triton.jit(do_not_specialize=_NOT_SPECIAL)
def _node_forward(
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
    for number in range(tl.load(span), tl.load(span + 1)):
        item = table + item_at + 7 * number
        slot = tl.load(item) * steps + t * tl.load(item + 1) + tl.load(item + 2)
        row = slot.to(tl.int64) * batch + line % batch
        gate = tl.load(pre + row * 2 * width + column, mask=inside, other=0.0)
        node = tl.load(pre + (row * 2 + 1) * width + column, mask=inside, other=0.0)
        before = tl.load(states + row * width + column, mask=inside, other=0.0)
        before = before.to(tl.float32)
        gate = _activate(gate.to(tl.float32), 3)
        node = _activate(node.to(tl.float32), tl.load(item + 3))
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


@triton.jit(do_not_specialize=_NOT_SPECIAL)
def _node_backward(
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
    span = table + span_at + 4 * (line // batch)
    shared = tl.zeros([BLOCK], tl.float32)
    if tl.load(span + 2) & 4:
        row = t.to(tl.int64) * lines + line
        shared = tl.load(d_output + row * width + column, mask=inside, other=0.0).to(tl.float32)
        if not CARRY_LAST:
            row = root.to(tl.int64) * batch + line
            carried = tl.load(d_states + row * width + column, mask=inside, other=0.0)
            shared += carried.to(tl.float32)
        shared = shared / tl.load(span + 3).to(tl.float32)
    for number in range(tl.load(span), tl.load(span + 1)):
        item = table + item_at + 7 * number
        first = tl.load(item)
        place = tl.load(item + 2)
        kind = tl.load(item + 3)
        d_state = tl.where(tl.load(item + 4) != 0, shared, 0.0)
        for reader in range(tl.load(item + 5), tl.load(item + 6)):
            target = table + target_at + 4 * reader
            slot = tl.load(target) + tl.load(target + 2)
            row = slot.to(tl.int64) * batch + line % batch
            d_read = tl.load(d_states + row * width + column, mask=inside, other=0.0)
            d_state += d_read.to(tl.float32)
        slot = first * steps + t * tl.load(item + 1) + place
        row = slot.to(tl.int64) * batch + line % batch
        gate = tl.load(pre + row * 2 * width + column, mask=inside, other=0.0)
        x = tl.load(pre + (row * 2 + 1) * width + column, mask=inside, other=0.0).to(tl.float32)
        before = tl.load(states + row * width + column, mask=inside, other=0.0)
        gate = _activate(gate.to(tl.float32), 3)
        node = _activate(x, kind)
        d_node = d_state * gate * _slope(x, node, kind)
        d_gate = d_state * (node - before.to(tl.float32)) * gate * (1.0 - gate)
        kept = d_pre.dtype.element_ty
        tl.store(d_pre + row * 2 * width + column, d_gate.to(kept), mask=inside)
        tl.store(d_pre + (row * 2 + 1) * width + column, d_node.to(kept), mask=inside)
        row = (first + place).to(tl.int64) * batch + line % batch
        past = (d_state * (1.0 - gate)).to(kept)
        tl.store(d_states + row * width + column, past, mask=inside)


@dataclass(frozen=True, slots=True)
class _Group:
    """Slots of one wave that share a matrix (of the roots: -1)."""

    edge: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class _Schedule:
    """What is run in which order.

    The table holds, one after the other: for each wave and cell `_SPAN` numbers: the first item,
    the one behind the last, flags (leaves `_BEFORE`, `_AFTER` and `_HERE`) and the cell's number of
    leaves; for each slot `_ITEM` numbers: `first`, `count` and `place` of its row, activation,
    whether it is a leaf, first target and the one behind the last; for each reader of a state
    `_TARGET` numbers: `first`, `count` and `place` of its row, and in how many steps it reads.
    """

    waves: tuple[tuple[_Group, ...], ...]
    table: Tensor
    item_at: int
    target_at: int
    root: int
    cells: int


_Lists = tuple[tuple[int, ...], ...]


@functools.lru_cache(maxsize=1024)
def _schedule(
    previous: _Lists,
    activations: _Lists,
    edge_index: _Lists,
    carry_last: bool,
    device: torch.device,
) -> _Schedule:
    cells = len(activations)
    depths = [_depths(each) for each in previous]
    waves, row_of = _place(depths, edge_index)
    root = sum(group.count for wave in waves[1:] for group in wave)
    spans: list[int] = []
    items: list[int] = []
    targets: list[int] = []
    for wave in range(len(waves)):
        for cell in range(cells):
            own = (previous[cell], depths[cell])
            leaves = [node for node in range(len(own[1])) if node not in own[0]]
            flags = sum(
                flag
                for flag, found in (
                    (_BEFORE, any(own[1][node] < wave for node in leaves)),
                    (_AFTER, any(own[1][node] > wave for node in leaves)),
                    (_HERE, any(own[1][node] == wave for node in leaves)),
                )
                if found
            )
            # A wave without a leaf of the cell has nothing to do with their sum.
            flags = flags if flags & _HERE else 0
            begin = len(items) // _ITEM
            for node, depth in enumerate(own[1]):
                if depth != wave:
                    continue
                at = len(targets) // _TARGET
                for reader, source in enumerate(own[0], 1):
                    if source == node:
                        targets += [*row_of[cell, reader], 0]
                if carry_last and node == len(own[1]) - 1:
                    targets += [*row_of[cell, 0], 1]
                behind = len(targets) // _TARGET
                kind = activations[cell][node]
                items += [*row_of[cell, node], kind, int(node in leaves), at, behind]
            spans += [begin, len(items) // _ITEM, flags, len(leaves)]
    table = torch.tensor(spans + items + targets, dtype=torch.int32, device=device)
    item_at = len(spans)
    return _Schedule(waves, table, item_at, item_at + len(items), root, cells)


def _depths(previous: Sequence[int]) -> list[int]:
    depths = [0]
    for source in previous:
        depths.append(depths[source] + 1)
    return depths


def _place(
    depths: Sequence[Sequence[int]], edge_index: _Lists
) -> tuple[tuple[tuple[_Group, ...], ...], dict[tuple[int, int], tuple[int, int, int]]]:
    """Return the waves, and `first`, `count` and `place` of the row of each (cell, node)."""
    members: dict[int, dict[int, list[tuple[int, int]]]] = {}
    for cell, own in enumerate(depths):
        for node, depth in enumerate(own):
            edge = edge_index[cell][node - 1] if node else -1
            members.setdefault(depth, {}).setdefault(edge, []).append((cell, node))
    waves: list[tuple[_Group, ...]] = []
    row_of: dict[tuple[int, int], tuple[int, int, int]] = {}
    at = 0
    # The roots' wave is run first, but its slots come last.
    for depth in [*range(1, len(members)), 0]:
        groups = []
        for edge, nodes in sorted(members[depth].items()):
            groups.append(_Group(edge, at, len(nodes)))
            for place, node in enumerate(nodes):
                row_of[node] = (at, len(nodes), place)
            at += len(nodes)
        waves.append(tuple(groups))
    return (waves[-1], *waves[:-1]), row_of


class _Run:
    """A schedule with the sizes of one call: where rows lie, and how a wave is launched."""

    def __init__(self, schedule: _Schedule, x: Tensor, h0: Tensor, carry_last: bool) -> None:
        self.schedule = schedule
        self.steps, self.lines, _ = x.shape
        self.width = h0.shape[1]
        self.batch = self.lines // schedule.cells
        self.carry_last = carry_last
        # The largest power of two that divides the width: so the compiler knows of whole vectors.
        self.unit = min(self.width & -self.width, 16)
        vector = 16 // h0.element_size()
        self.block = max(32 * vector, min(128 * vector, triton.next_power_of_2(self.width)))
        self.warps = self.block // (32 * vector)

    def rows(self, group: _Group, step: int | None = None) -> slice:
        """Return a group's rows of one step, or of all of them."""
        begin = group.first * self.steps * self.batch
        size = group.count * self.batch
        if step is None:
            return slice(begin, begin + self.steps * size)
        return slice(begin + step * size, begin + (step + 1) * size)

    def slots(self, group: _Group) -> slice:
        """Return a group's rows in a buffer of one step."""
        return slice(group.first * self.batch, (group.first + group.count) * self.batch)

    def launch(self, kernel: object, wave: int, step: int, tensors: Sequence[Tensor]) -> None:
        """Run the nodes of a wave."""
        schedule = self.schedule
        launch(
            kernel,
            "elementwise",
            (self.lines, triton.cdiv(self.width, self.block)),
            tensors[0],
            (
                *tensors,
                schedule.table,
                wave * schedule.cells * _SPAN,
                schedule.item_at,
                schedule.target_at,
                step,
                self.steps,
                self.batch,
                schedule.root,
                self.width // self.unit,
            ),
            num_warps=self.warps,
            UNIT=self.unit,
            CARRY_LAST=self.carry_last,
            BLOCK=self.block,
        )


def _run(
    x: Tensor,
    h0: Tensor,
    previous: Sequence[Sequence[int]],
    activations: Sequence[Sequence[int]],
    edge_index: Sequence[Sequence[int]],
    carry_last: bool,
) -> _Run:
    lists = [tuple(map(tuple, each)) for each in (previous, activations, edge_index)]
    return _Run(_schedule(*lists, carry_last, x.device), x, h0, carry_last)


def rnn_cell(
    x: Tensor,
    h0: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Sequence[Tensor],
    previous: Sequence[Sequence[int]],
    activations: Sequence[Sequence[int]],
    edge_index: Sequence[Sequence[int]],
    carry_last: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Run M sampled cells over T steps: `Backend.rnn_cell`."""
    run = _run(x, h0, previous, activations, edge_index, carry_last)
    steps, lines, width = run.steps, run.lines, run.width
    roots = run.schedule.waves[0][0]
    inner = run.schedule.root * steps * run.batch
    pre = h0.new_empty(inner + steps * lines, 2 * width)
    states = h0.new_empty(inner + (steps + 1) * lines, width)
    output = h0.new_empty(steps, lines, width)
    leaf_sum = h0.new_empty(lines, width, dtype=torch.float32)
    states[inner : inner + lines] = h0
    torch.mm(x.reshape(steps * lines, -1), w_input.t(), out=pre[inner:])
    for step in range(steps):
        at = run.rows(roots, step)
        pre[at].addmm_(states[at], w_hidden.t())
        for wave, groups in enumerate(run.schedule.waves):
            for group in groups if wave else ():
                at = run.rows(group, step)
                torch.mm(states[at], edges[group.edge].t(), out=pre[at])
            run.launch(_node_forward, wave, step, (pre, states, output, leaf_sum))
    return output, states[inner + steps * lines :].clone(), [pre, states]


def rnn_cell_backward(
    d_output: Tensor,
    d_state: Tensor,
    saved: Sequence[Tensor],
    x: Tensor,
    h0: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Sequence[Tensor],
    previous: Sequence[Sequence[int]],
    activations: Sequence[Sequence[int]],
    edge_index: Sequence[Sequence[int]],
    carry_last: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """Return the gradients of `rnn_cell`: `Backend.rnn_cell_backward`."""
    run = _run(x, h0, previous, activations, edge_index, carry_last)
    pre, states = saved
    d_pre = torch.empty_like(pre)
    waves = run.schedule.waves
    roots = waves[0][0]
    d_states = h0.new_empty((run.schedule.root + roots.count) * run.batch, run.width)
    d_carried = d_states[run.slots(roots)]
    d_carried.copy_(d_state)
    tensors = (pre, states, d_output.contiguous(), d_pre, d_states)
    for step in range(run.steps - 1, -1, -1):
        for wave in range(len(waves) - 1, -1, -1):
            run.launch(_node_backward, wave, step, tensors)
            for group in waves[wave]:
                matrix = edges[group.edge] if wave else w_hidden
                d_states[run.slots(group)].addmm_(d_pre[run.rows(group, step)], matrix)
    d_edges: list[Tensor | None] = [None] * len(edges)
    for group in (group for wave in waves[1:] for group in wave):
        at, known = run.rows(group), d_edges[group.edge]
        if known is None:
            d_edges[group.edge] = d_pre[at].t() @ states[at]
        else:
            known.addmm_(d_pre[at].t(), states[at])
    at = run.rows(roots)
    d_root = d_pre[at]
    return (
        (d_root @ w_input).view_as(x),
        d_carried.clone(),
        d_root.t() @ x.reshape(run.steps * run.lines, -1),
        d_root.t() @ states[at],
        [torch.zeros_like(edge) if d is None else d for edge, d in zip(edges, d_edges, strict=True)],
    )
