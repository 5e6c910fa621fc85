"""Cells of NAS-Bench-101: a labelled graph, what of it is used, and how wide its vertices are.

Source: Ying et al. 2019, section 2, and the authors' code (`model_spec.py`, `model_builder.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

INPUT = "input"
OUTPUT = "output"
CONV3X3 = "conv3x3-bn-relu"
CONV1X1 = "conv1x1-bn-relu"
MAXPOOL3X3 = "maxpool3x3"
#: In the order in which the published hash numbers them.
OPS = (CONV3X3, CONV1X1, MAXPOOL3X3)


@dataclass(frozen=True, slots=True)
class Reach:
    """The vertices that are on a path from the first vertex to the last.

    Attributes:
        kept: Their indices, in order; empty if the last cannot be reached.
    """

    kept: tuple[int, ...]

    @classmethod
    def of(cls, successors: Sequence[int]) -> Reach:
        """Find them.

        Args:
            successors: Bit y of entry x is set for an edge from x to y > x.
        """
        last = len(successors) - 1
        forward = 1
        for x, mask in enumerate(successors):
            if forward >> x & 1:
                forward |= mask
        backward = 1 << last
        for x in range(last - 1, -1, -1):
            if successors[x] & backward:
                backward |= 1 << x
        both = forward & backward
        if not (both & 1 and both >> last & 1):
            return cls(())
        return cls(tuple(v for v in range(last + 1) if both >> v & 1))


@dataclass(frozen=True)
class Cell:
    """A cell; the first vertex is its input, the last its output.

    Attributes:
        predecessors: For each vertex the sorted indices of those that it reads.
        ops: Label of each vertex, ``input`` and ``output`` included.
    """

    predecessors: tuple[tuple[int, ...], ...]
    ops: tuple[str, ...]

    @classmethod
    def from_matrix(cls, matrix: Sequence[Sequence[int]], ops: Sequence[str]) -> Cell:
        """Read an upper triangular adjacency matrix: row x, column y for an edge from x to y."""
        count = len(ops)
        inputs = tuple(tuple(x for x in range(y) if matrix[x][y]) for y in range(count))
        return cls(inputs, tuple(ops))

    def matrix(self) -> list[list[int]]:
        """Return the adjacency matrix."""
        count = len(self.ops)
        return [[int(x in self.predecessors[y]) for y in range(count)] for x in range(count)]

    @property
    def edges(self) -> int:
        """The number of edges."""
        return sum(len(inputs) for inputs in self.predecessors)

    @cached_property
    def successors(self) -> tuple[int, ...]:
        """For each vertex the mask of those that read it."""
        return tuple(
            sum(1 << y for y, inputs in enumerate(self.predecessors) if x in inputs)
            for x in range(len(self.ops))
        )

    def pruned(self) -> Cell | None:
        """Return the cell without what is on no path from input to output.

        Returns:
            None if there is no such path.
        """
        kept = Reach.of(self.successors).kept
        if not kept:
            return None
        place = {v: i for i, v in enumerate(kept)}
        inputs = tuple(tuple(place[x] for x in self.predecessors[y] if x in place) for y in kept)
        return Cell(inputs, tuple(self.ops[v] for v in kept))

    def without(self, x: int, y: int) -> Cell:
        """Return the cell without the edge from x to y."""
        inputs = list(self.predecessors)
        inputs[y] = tuple(each for each in inputs[y] if each != x)
        return Cell(tuple(inputs), self.ops)

    def channels(self, cell_channels: int) -> tuple[int, ...]:
        """Return the channels of each vertex of a pruned cell.

        The output's channels are shared out among the vertices that it reads, the input not
        counted, the first ones get what does not divide; any other vertex is as wide as the widest
        that reads it. The entry of the input, which is projected wherever it is read, is 0.
        """
        last = len(self.ops) - 1
        widths = [0] * last + [cell_channels]
        parts = [v for v in self.predecessors[last] if v > 0]
        for i, v in enumerate(parts):
            widths[v] = cell_channels // len(parts) + (i < cell_channels % len(parts))
        for v in range(last - 1, 0, -1):
            if v not in parts:
                widths[v] = max(widths[y] for y in range(v + 1, last) if v in self.predecessors[y])
        return tuple(widths)


def usable(cell: Cell, max_edges: int) -> Cell:
    """Return the valid cell that stands for any other one, pruned.

    A cell without a path from input to output becomes the one edge between them. From a cell with
    too many edges, the edge that skips the most vertices goes first, of equal ones the first,
    preferably one that no vertex depends on; and again, until there are few enough.
    """
    found = cell.pruned()
    if found is None:
        return Cell(((), (0,)), (cell.ops[0], cell.ops[-1]))
    while found.edges > max_edges:
        found = _without_longest(found)
    return found


def _without_longest(cell: Cell) -> Cell:
    edges = [(x, y) for y, inputs in enumerate(cell.predecessors) for x in inputs]

    def rank(edge: tuple[int, int]) -> tuple[bool, int, int, int]:
        x, y = edge
        is_needed = len(cell.predecessors[y]) == 1 or cell.successors[x].bit_count() == 1
        return (is_needed, x - y, x, y)

    for x, y in sorted(edges, key=rank):
        smaller = cell.without(x, y).pruned()
        if smaller is not None:
            return smaller
    raise AssertionError(
        "a cell with two edges or more can lose one"
    )  # one path is 1 edge at least
