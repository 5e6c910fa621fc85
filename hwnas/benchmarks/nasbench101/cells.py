"""Many cells at once: enumeration, hashes, edit distances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas._core import cell_distances, cell_hashes, enumerate_cells
from hwnas.benchmarks.nasbench101.model_spec import ModelSpec
from hwnas.errors import UserInputError
from hwnas.spaces._nasbench101_cell import INPUT, OPS, OUTPUT

_WIDTH = 8


@dataclass(frozen=True)
class Cells:
    """N cells in arrays.

    Attributes:
        vertices: Number of vertices, `[N]`.
        edges: `[N]`; bit ``x + y * (y - 1) // 2`` is set for an edge from x to y.
        labels: `[N, 8]`: -1 input, -2 output, else the index of the op.
    """

    vertices: NDArray[np.uint8]
    edges: NDArray[np.uint32]
    labels: NDArray[np.int8]

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.vertices)

    def __iter__(self) -> Iterator[ModelSpec]:
        """Iterate over the cells."""
        return (self.spec(i) for i in range(len(self)))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Cells:
        """Return some of the cells."""
        chosen = np.asarray(indices)
        return Cells(self.vertices[chosen], self.edges[chosen], self.labels[chosen])

    def matrix(self, index: int) -> list[list[int]]:
        """Return the adjacency matrix of one cell."""
        count, bits = int(self.vertices[index]), int(self.edges[index])
        return [
            [(bits >> (x + y * (y - 1) // 2)) & 1 if x < y else 0 for y in range(count)]
            for x in range(count)
        ]

    def ops(self, index: int, names: Sequence[str] = OPS) -> list[str]:
        """Return the labels of one cell by name."""
        inner = self.labels[index, 1 : int(self.vertices[index]) - 1].tolist()
        return [INPUT, *(names[label] for label in inner), OUTPUT]

    def spec(self, index: int) -> ModelSpec:
        """Return one cell."""
        return ModelSpec(self.matrix(index), self.ops(index))

    def digests(self) -> NDArray[np.uint8]:
        """Return the hashes as bytes, `[N, 16]`."""
        return cell_hashes(self.vertices, self.edges, self.labels)

    def hashes(self) -> list[str]:
        """Return the hashes as the published package writes them."""
        text = self.digests().tobytes().hex()
        return [text[32 * i : 32 * i + 32] for i in range(len(self))]

    def distances(self, pairs: Sequence[tuple[int, int]] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the edit distance (see `edit_distance`) of each of `[P, 2]` pairs of indices."""
        found = np.asarray(pairs, np.int64).reshape(-1, 2)
        return cell_distances(self.vertices, self.edges, self.labels, found)

    @classmethod
    def of(cls, specs: Iterable[ModelSpec], ops: Sequence[str] = OPS) -> Cells:
        """Put some specs into arrays, pruned.

        Raises:
            UserInputError: One is invalid, has more than 8 vertices, or another op.
        """
        vertices, edges, labels = [], [], []
        for spec in specs:
            if spec.ops is None or len(spec.ops) > _WIDTH:
                raise UserInputError("a cell without a path to its output, or of over 8 vertices")
            unknown = [op for op in spec.ops[1:-1] if op not in ops]
            if unknown:
                raise UserInputError(f"no op {unknown[0]!r}", f"the ops are {', '.join(ops)}")
            row = [-1, *(ops.index(op) for op in spec.ops[1:-1]), -2]
            vertices.append(len(row))
            edges.append(spec.edge_bits)
            labels.append(row + [0] * (_WIDTH - len(row)))
        return cls(
            np.array(vertices, np.uint8),
            np.array(edges, np.uint32),
            np.array(labels, np.int8).reshape(-1, _WIDTH),
        )


def unique_cells(max_vertices: int = 7, max_edges: int = 9, ops: int = len(OPS)) -> Cells:
    """Return one cell of each class of isomorphic ones, in the published order.

    The defaults give the 423,624 cells of NAS-Bench-101.

    Args:
        max_vertices: Input and output included; 2 to 7.
        max_edges: Cells with more are left out.
        ops: Number of ops that a vertex between can have.

    Raises:
        ValueError: An argument is out of range.
    """
    return Cells(*enumerate_cells(max_vertices, max_edges, ops))


def edit_distance(a: ModelSpec, b: ModelSpec) -> int:
    """Return the graph edit distance of two cells after pruning.

    As in Ying et al. 2019, section 3.3: the fewest changes, each of which flips the op of a vertex,
    or whether there is an edge; over all ways to match the vertices between. A vertex that one of
    the cells lacks is there without edges, as in the benchmark's matrices of seven vertices; its op
    costs nothing.

    Raises:
        UserInputError: A cell is invalid or too large.
    """
    return int(Cells.of((a, b)).distances([(0, 1)])[0])
