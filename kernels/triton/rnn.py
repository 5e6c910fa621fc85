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

from hwnas.kernels.triton._rnn_nodes import node_backward, node_forward
from hwnas.kernels.triton._spec import KernelSpec, Traffic, launch

if TYPE_CHECKING:
    from torch import Tensor

_SPAN, _ITEM, _TARGET = 4, 7, 4
_BEFORE, _AFTER, _HERE = 1, 2, 4


@dataclass(frozen=True, slots=True)
class _Group:
    """Slots of one wave that share a matrix (of the roots: -1)."""

    edge: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """How many slots, reads of states and cells with leaves a wave has, for counting bytes.

    Of those cells, `unfinished` have leaves in later waves too, and `begun` in earlier ones.
    """

    items: int
    targets: int
    leaves: int
    unfinished: int
    begun: int


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
    rows: tuple[_Rows, ...]
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
    rows: list[_Rows] = []
    for wave in range(len(waves)):
        start, seen = (len(items), len(targets)), len(spans)
        for cell in range(cells):
            sources, depth = previous[cell], depths[cell]
            leaves = [node for node in range(len(depth)) if node not in sources]
            begin = len(items) // _ITEM
            for node in (node for node in range(len(depth)) if depth[node] == wave):
                at = len(targets) // _TARGET
                for reader, source in enumerate(sources, 1):
                    if source == node:
                        targets += [*row_of[cell, reader], 0]
                if carry_last and node == len(depth) - 1:
                    targets += [*row_of[cell, 0], 1]
                behind = len(targets) // _TARGET
                kind = activations[cell][node]
                items += [*row_of[cell, node], kind, int(node in leaves), at, behind]
            flags = _flags([depth[node] for node in leaves], wave)
            spans += [begin, len(items) // _ITEM, flags, len(leaves)]
        found = spans[seen + 2 :: _SPAN]
        rows.append(
            _Rows(
                (len(items) - start[0]) // _ITEM,
                (len(targets) - start[1]) // _TARGET,
                *(sum(bool(flags & flag) for flags in found) for flag in (_HERE, _AFTER, _BEFORE)),
            )
        )
    table = torch.tensor(spans + items + targets, dtype=torch.int32, device=device)
    item_at = len(spans)
    target_at = item_at + len(items)
    return _Schedule(waves, tuple(rows), table, item_at, target_at, root, cells)


def _flags(depths: Sequence[int], wave: int) -> int:
    """Return what a wave has to do with the sum over leaves of these depths."""
    if wave not in depths:
        return 0
    before = _BEFORE if min(depths) < wave else 0
    return _HERE | before | (_AFTER if max(depths) > wave else 0)


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
            for place, key in enumerate(nodes):
                row_of[key] = (at, len(nodes), place)
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
        vector = 16 // h0.element_size() if self.unit >= 16 // h0.element_size() else 4
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
            num_stages=1,
            traffic=lambda: self.traffic(kernel is node_forward, wave, tensors[0].element_size()),
            UNIT=self.unit,
            CARRY_LAST=self.carry_last,
            BLOCK=self.block,
        )

    def traffic(self, is_forward: bool, wave: int, size: int) -> Traffic:
        """Count the bytes of a launch; the least is that without the sum of leaves so far."""
        rows = self.schedule.rows[wave]
        row = self.batch * self.width
        averages = 1 if self.carry_last else 2
        if not is_forward:
            moved = 6 * rows.items + rows.targets + averages * rows.leaves
            return Traffic(row * size * moved, row * size * moved)
        averages *= rows.leaves - rows.unfinished
        least = row * size * (3 * rows.items + rows.targets + averages)
        return Traffic(least + 4 * row * (rows.unfinished + rows.begun), least)


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
    torch.mm(x.flatten(0, 1), w_input.t(), out=pre[inner:])
    for step in range(steps):
        at = run.rows(roots, step)
        pre[at].addmm_(states[at], w_hidden.t())
        for wave, groups in enumerate(run.schedule.waves):
            for group in groups if wave else ():
                at = run.rows(group, step)
                torch.mm(states[at], edges[group.edge].t(), out=pre[at])
            run.launch(node_forward, wave, step, (pre, states, output, leaf_sum))
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
            run.launch(node_backward, wave, step, tensors)
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
        d_root.t() @ x.flatten(0, 1),
        d_root.t() @ states[at],
        [
            torch.zeros_like(edge) if d is None else d
            for edge, d in zip(edges, d_edges, strict=True)
        ],
    )


def _sample(dtype: torch.dtype) -> None:
    """Run one step of a cell of 12 nodes, hidden 1000, batch 64."""
    x = torch.empty(1, 64, 1000, dtype=dtype, device="meta")
    matrix = x.new_empty(2000, 1000)
    previous = [[0, 0, 1, 1, 3, 2, 2, 5, 4, 4, 9]]
    cell = ([matrix] * 11, previous, [[0, 1, 2, 3] * 3], [list(range(11))], False)
    output, state, saved = rnn_cell(x, x[0], matrix, matrix, *cell)
    rnn_cell_backward(output, state, saved, x, x[0], matrix, matrix, *cell)


KERNELS: list[KernelSpec] = [
    KernelSpec("recurrent nodes, 64×1000", "elementwise", _sample, kernel="node_forward"),
    KernelSpec(
        "recurrent nodes, 64×1000, backward", "elementwise", _sample, kernel="node_backward"
    ),
]
