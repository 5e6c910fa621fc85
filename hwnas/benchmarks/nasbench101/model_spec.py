"""`ModelSpec`: a cell as an adjacency matrix and labels, as the published package has it."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas._core import cell_hash
from hwnas.benchmarks.nasbench101.graph_util import hash_module
from hwnas.errors import UserInputError
from hwnas.graph.architecture import Architecture
from hwnas.spaces._nasbench101_cell import INPUT, OUTPUT, Reach
from hwnas.spaces.nasbench101 import NasBench101, architecture_of

#: The compiled hash takes cells of up to so many vertices and ops.
_COMPILED_VERTICES, _COMPILED_OPS = 8, 128


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

    # Its own fields lie together, which a query feels; others may be added all the same.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_edges",
        "_found",
        "_known",
        "data_format",
        "edges",
        "matrix",
        "ops",
        "original_matrix",
        "original_ops",
    )

    def __init__(self, matrix: Any, ops: Sequence[str], data_format: str = "channels_last") -> None:
        self.original_matrix: NDArray[Any] = np.array(matrix)
        self.original_ops = copy.copy(ops)
        shape = self.original_matrix.shape
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError("matrix must be square")
        if shape[0] != len(ops):
            raise ValueError("length of ops must match matrix dimensions")
        successors = _masks(self.original_matrix)
        if not _are_ahead(successors):
            raise ValueError("matrix must be upper triangular")
        self.data_format = data_format
        self.matrix: NDArray[Any] | None = None
        self.ops: list[str] | None = None
        self._known: tuple[Sequence[str], Sequence[str], str] | None = None
        self._found: tuple[object, str, int] | None = None  # where a benchmark has its hash
        self._prune(successors)

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
        try:
            labels = [-1, *[canonical_ops.index(op) for op in self.ops[1:-1]], -2]
        except ValueError:
            unknown = next(op for op in self.ops[1:-1] if op not in canonical_ops)
            raise ValueError(f"{unknown!r} is not in {list(canonical_ops)}") from None
        if len(labels) <= _COMPILED_VERTICES and len(canonical_ops) <= _COMPILED_OPS:
            found = cell_hash(self._edges, bytes([255, *labels[1:-1], 254]))
        else:
            assert self.matrix is not None
            found = hash_module(self.matrix, labels)
        self._known = (list(self.ops), list(canonical_ops), found)
        return found

    def visualize(self) -> Any:
        """Return the pruned cell as a `graphviz.Digraph`, which a notebook draws.

        Raises:
            UserInputError: The Python package `graphviz` is not installed.
            ValueError: The cell is invalid.
        """
        if self.matrix is None or self.ops is None:
            raise ValueError("an invalid cell cannot be drawn: its output cannot be reached")
        try:
            graphviz = importlib.import_module("graphviz")
        except ImportError:
            raise UserInputError(
                "ModelSpec.visualize needs the Python package graphviz, which is not installed",
                "pip install graphviz; to write pictures, also the programs of graphviz.org",
            ) from None
        graph = graphviz.Digraph()
        for v, label in enumerate([INPUT, *self.ops[1:-1], OUTPUT]):
            graph.node(str(v), label)
        for x, y in np.argwhere(self.matrix).tolist():
            graph.edge(str(x), str(y))
        return graph

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

    def _prune(self, successors: list[int]) -> None:
        kept = Reach.of(successors).kept
        self._edges = self.edges = 0
        if not kept:
            return
        if len(kept) == len(successors):
            self.matrix = self.original_matrix.copy()
            self.ops = list(self.original_ops)
        else:
            self.matrix = self.original_matrix[np.ix_(kept, kept)]
            self.ops = [self.original_ops[v] for v in kept]
        self.matrix.setflags(write=False)
        for place, y in enumerate(kept):
            base = place * (place - 1) // 2
            for from_place, x in enumerate(kept[:place]):
                if successors[x] >> y & 1:
                    self._edges |= 1 << (base + from_place)
        self.edges = self._edges.bit_count()


def is_upper_triangular(matrix: Any) -> bool:
    """Tell whether a square matrix is 0 on and below its diagonal."""
    return _are_ahead(_masks(np.asarray(matrix)))


def _are_ahead(successors: list[int]) -> bool:
    return not any(mask & ((2 << x) - 1) for x, mask in enumerate(successors))


def _masks(matrix: NDArray[Any]) -> list[int]:
    """Return for each row of a matrix the mask of its entries that are not 0."""
    packed = np.packbits(matrix != 0, axis=1, bitorder="little")
    if packed.shape[1] == 1:  # eight vertices at most
        found: list[int] = packed[:, 0].tolist()
        return found
    return [int.from_bytes(row.tobytes(), "little") for row in packed]
