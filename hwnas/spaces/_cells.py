"""What the spaces of cells share: picks of a node, branches with drop-path, output channels.

A cell is a list of nodes. State 0 is the output of the cell before the last one, state 1 that of
the last cell, state i + 2 that of node i; each node reads two states and applies an op to each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hwnas.graph import Answer, GraphBuilder, Pick, Value
from hwnas.graph.ops.mixed_op import Candidate

#: How a published cell is written down: for each node its two (op, state) pairs.
Pairs: TypeAlias = Sequence[tuple[tuple[str, int], tuple[str, int]]]


@dataclass(frozen=True, slots=True)
class CellNode:
    """What was picked for a node.

    Attributes:
        first: State that the first op reads.
        second: State that the second op reads.
        op1: The first op.
        op2: The second op.
        combine: How the two results are put together.
    """

    first: int
    second: int
    op1: str
    op2: str
    combine: str = "add"

    @property
    def branches(self) -> tuple[tuple[str, str, int], tuple[str, str, int]]:
        """Slot, op and state of both branches."""
        return ("a", self.op1, self.first), ("b", self.op2, self.second)


Cell: TypeAlias = tuple[CellNode, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """A candidate of a node, and whether drop-path may drop it."""

    candidate: Candidate
    is_dropped: bool = True


def pick_cell(
    pick: Pick, name: str, nodes: int, ops: Sequence[str], combines: Sequence[str] = ()
) -> Cell:
    """Ask for a cell: for each node both inputs, then both ops, then how they are combined."""
    cell = []
    for i in range(nodes):
        node = f"{name}/node{i}"
        first = pick.predecessor(f"{node}/input1", i + 2)
        second = pick.predecessor(f"{node}/input2", i + 2)
        op1, op2 = pick.one_of(f"{node}/op1", ops), pick.one_of(f"{node}/op2", ops)
        how = pick.one_of(f"{node}/combine", combines) if combines else "add"
        cell.append(CellNode(first, second, op1, op2, how))
    return tuple(cell)


def cell_answers(name: str, pairs: Pairs, combine: str | None = None) -> Mapping[str, Answer]:
    """Return the answers that `pick_cell` gets for a cell that is written down."""
    answers: dict[str, Answer] = {}
    for i, ((op1, first), (op2, second)) in enumerate(pairs):
        node = f"{name}/node{i}"
        answers |= {f"{node}/input1": first, f"{node}/input2": second}
        answers |= {f"{node}/op1": op1, f"{node}/op2": op2}
        if combine is not None:
            answers[f"{node}/combine"] = combine
    return answers


def unread(cell: Cell) -> tuple[int, ...]:
    """Return the states that no node reads: the cell's output, in the order of the states."""
    return unread_states([(op, state) for node in cell for _, op, state in node.branches])


def unread_states(edges: Sequence[tuple[str, int]]) -> tuple[int, ...]:
    """Return the states that none of a cell's (op, state) pairs reads, two pairs a node."""
    read = {state for _, state in edges}
    return tuple(state for state in range(len(edges) // 2 + 2) if state not in read)


def sum_branches(
    g: GraphBuilder,
    inputs: Sequence[Value],
    branches: Iterable[Branch],
    rate: float,
    weights: str,
) -> Value:
    """Add the sum of a node's branches.

    Without drop-path it is a `mixed_op`, which the fused kernels run as one; with it the branches
    are ops of their own, whose weights have the same names.

    Args:
        g: The builder.
        inputs: What the candidates read.
        branches: The candidates.
        rate: Rate of drop-path at the end of the training; 0 is off.
        weights: Name of the node.
    """
    branches = tuple(branches)
    if not rate:
        candidates = tuple(each.candidate for each in branches)
        return g.mixed_op(*inputs, branches=candidates, weights=weights)
    values = []
    for each in branches:
        x, op = inputs[each.candidate.input], each.candidate.op
        if op is not None:
            x = g.add(op, [x], f"{weights}/{each.candidate.weights}")
        values.append(g.drop_path(x, rate=rate) if each.is_dropped else x)
    total = values[0]
    for value in values[1:]:
        total = g.sum(total, value)
    return total


def fit(g: GraphBuilder, before: Value, last: Value, channels: int, weights: str) -> Value:
    """Bring the output of the cell before the last one to the last one's size, and to `channels`.

    ReLU, 1×1 convolution and batch norm, or a factorised reduction where the image is larger;
    nothing where both fit. `weights` gets the number of input channels appended, which may depend
    on the architecture.
    """
    name = f"{weights}{before.shape[0]}"
    if before.shape[1:] != last.shape[1:]:
        return g.factorized_reduction(before, channels=channels, relu=True, weights=name)
    if before.shape[0] != channels:
        return g.conv_bn(before, channels=channels, relu="before", weights=name)
    return before


def join(g: GraphBuilder, values: Sequence[Value]) -> Value:
    """Concatenate values; one alone is passed on."""
    return g.concat(*values) if len(values) > 1 else values[0]


def check_output(name: str, states: Sequence[int] | None, nodes: int) -> None:
    """Refuse states to concatenate that a cell of `nodes` nodes does not have.

    Raises:
        ValueError: There are none, or an unknown or repeated one.
    """
    if states is None:
        return
    if (
        not states
        or list(states) != sorted(set(states))
        or not 0 <= states[0] <= states[-1] < (nodes + 2)
    ):
        raise ValueError(f"{name}: {list(states)} must be some of 0 to {nodes + 1}, in order")
