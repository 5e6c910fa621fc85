"""`ModelSpec`: a cell as an adjacency matrix and labels, as the published package has it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas._core import cell_hash
from hwnas.graph.architecture import Architecture
from hwnas.spaces._nasbench101_cell import Reach
from hwnas.spaces.nasbench101 import NasBench101, architecture_of

#: The compiled hash takes cells of up to so many vertices.
_COMPILED_VERTICES = 8


class ModelSpec:
    """A cell; what is on no path from the input to the output is taken away.

    The interface is that of `nasbench.api.ModelSpec`. `matrix` cannot be written to here, because
    its hash is kept; `original_matrix` can.

    Args:
        matrix: Upper triangular adjacency matrix, `[V, V]`, of 0 and 1.
        ops: Label of each vertex, such as `conv3x3-bn-relu`; the first and the last are the cell's
            input and output.
        data_format: Kept for whoever asks; nothing here depends on it.

    Attributes:
        original_matrix: The matrix that was given.
        original_ops: The labels that were given.
        matrix: The pruned matrix; None where the output cannot be reached.
        ops: The pruned labels; None likewise.
        edges: Number of edges after pruning; 0 for an invalid cell.
        data_format: As given.

    Raises:
        ValueError: The matrix is not square, not upper triangular, or does not fit the labels.
    """

    def __init__(self, matrix: Any, ops: Sequence[str], data_format: str = "channels_last") -> None:
        self.original_matrix: NDArray[Any] = np.array(matrix)
        self.original_ops = copy.copy(ops)
        shape = self.original_matrix.shape
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError("matrix must be square")
        if shape[0] != len(ops):
            raise ValueError("length of ops must match matrix dimensions")
        rows = self.original_matrix.tolist()
        if any(row[y] for x, row in enumerate(rows) for y in range(x + 1)):
            raise ValueError("matrix must be upper triangular")
        self.data_format = data_format
        self.matrix: NDArray[Any] | None = None
        self.ops: list[str] | None = None
        self._known: tuple[Sequence[str], Sequence[str], str] | None = None
        self._prune(rows)

    @property
    def valid_spec(self) -> bool:
        """Whether a path leads from the input to the output."""
        return self.matrix is not None

    @property
    def edge_bits(self) -> int:
        """The edges after pruning: bit ``x + y * (y - 1) // 2`` for one from x to y."""
        return self._edges

    def hash_spec(self, canonical_ops: Sequence[str]) -> str:
        """Return the published isomorphism-invariant hash.

        Args:
            canonical_ops: The labels that a vertex between can have; their order is part of the
                hash. The published one is ``config["available_ops"]``.

        Raises:
            ValueError: The cell is invalid, or has another label.
        """
        known = self._known
        if known is not None and known[0] == self.ops and known[1] == canonical_ops:
            return known[2]
        if self.ops is None:
            raise ValueError("an invalid cell has no hash: its output cannot be reached")
        places = {op: i for i, op in reversed(list(enumerate(canonical_ops)))}
        try:
            labels = [-1, *[places[op] for op in self.ops[1:-1]], -2]
        except KeyError as error:
            raise ValueError(f"{error.args[0]!r} is not in {list(canonical_ops)}") from None
        if len(labels) <= _COMPILED_VERTICES:
            found = cell_hash(self._edges, bytes(label & 255 for label in labels))
        else:
            assert self.matrix is not None
            found = reference_hash(self.matrix, labels)
        self._known = (list(self.ops), list(canonical_ops), found)
        return found

    def to_architecture(self, vertices: int = 7) -> Architecture:
        """Return the cell as picks of the space `nasbench101`.

        Args:
            vertices: The space's setting.

        Raises:
            UserInputError: The cell does not fit the space.
            ValueError: The cell is invalid.
        """
        if self.matrix is None or self.ops is None:
            raise ValueError("an invalid cell is no architecture: its output cannot be reached")
        return architecture_of(self.matrix.tolist(), self.ops, vertices)

    @classmethod
    def from_architecture(cls, space: NasBench101, architecture: Architecture) -> ModelSpec:
        """Return the cell that the space builds for some picks."""
        cell = space.cell(architecture)
        return cls(cell.matrix(), cell.ops)

    def _prune(self, rows: list[list[int]]) -> None:
        count = len(rows)
        successors = [sum(1 << y for y in range(count) if row[y]) for row in rows]
        kept = Reach.of(successors).kept
        self._edges = self.edges = 0
        if not kept:
            return
        self.matrix = self.original_matrix[np.ix_(kept, kept)]
        self.matrix.setflags(write=False)
        self.ops = [self.original_ops[v] for v in kept]
        for place, y in enumerate(kept):
            base = place * (place - 1) // 2
            for from_place, x in enumerate(kept[:place]):
                self._edges |= (successors[x] >> y & 1) << (base + from_place)
        self.edges = self._edges.bit_count()


def reference_hash(matrix: Any, labels: Sequence[int]) -> str:
    """Return the hash of a cell of any size, in plain Python: what the compiled one is tested by.

    Args:
        matrix: Adjacency matrix, `[V, V]`.
        labels: -1 for the input, -2 for the output, else the index of the op.
    """
    rows = np.asarray(matrix).astype(int).tolist()
    count = len(rows)
    sources = [[x for x in range(count) if rows[x][v]] for v in range(count)]
    targets = [[y for y in range(count) if rows[v][y]] for v in range(count)]
    hashes = [_md5(str((len(targets[v]), len(sources[v]), int(labels[v])))) for v in range(count)]
    for _ in range(count):
        hashes = [
            _md5(
                "|".join(
                    (
                        "".join(sorted(hashes[x] for x in sources[v])),
                        "".join(sorted(hashes[y] for y in targets[v])),
                        hashes[v],
                    )
                )
            )
            for v in range(count)
        ]
    return _md5(str(sorted(hashes)))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
