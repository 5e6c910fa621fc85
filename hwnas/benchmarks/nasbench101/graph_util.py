"""The functions of `nasbench.lib.graph_util`, on cells of any size, in plain Python.

`hash_module` is also what the compiled hash is tested by.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labelled = tuple[Any, Sequence[Any]]


def gen_is_edge_fn(bits: int) -> Callable[..., Any]:
    """Return a function of arrays x and y: whether there is an edge from x to y.

    Args:
        bits: The edges; bit ``x + y * (y - 1) // 2`` for one from x to y.
    """

    def is_edge(x: Any, y: Any) -> bool:
        x, y = int(x), int(y)  # the arrays may be of int8
        return x < y and bool(bits >> (x + y * (y - 1) // 2) & 1)

    return np.vectorize(is_edge, otypes=[bool])


def is_full_dag(matrix: Any) -> bool:
    """Tell whether only the first vertex has no predecessor, and only the last no successor."""
    edges = np.asarray(matrix) != 0
    return bool(edges[:-1].any(axis=1).all() and edges[:, 1:].any(axis=0).all())


def num_edges(matrix: Any) -> int:
    """Return the number of edges."""
    return int(np.sum(matrix))


def hash_module(matrix: Any, labeling: Sequence[int]) -> str:
    """Return the published isomorphism-invariant hash.

    Args:
        matrix: Adjacency matrix, `[V, V]`.
        labeling: -1 for the input, -2 for the output, else the index of the op.
    """
    rows = np.asarray(matrix).astype(int).tolist()
    count = len(rows)
    sources = [[x for x in range(count) if rows[x][v]] for v in range(count)]
    targets = [[y for y in range(count) if rows[v][y]] for v in range(count)]
    hashes = [_md5(str((len(targets[v]), len(sources[v]), int(labeling[v])))) for v in range(count)]
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


def permute_graph(
    graph: Any, label: Sequence[Any], permutation: Sequence[int]
) -> tuple[NDArray[Any], list[Any]]:
    """Return a graph and its labels with vertex v moved to ``permutation[v]``."""
    old = np.argsort(permutation)
    return np.asarray(graph)[np.ix_(old, old)], [label[v] for v in old]


def is_isomorphic(graph1: Labelled, graph2: Labelled) -> bool:
    """Tell whether two graphs, each a matrix and its labels, are the same but for the numbering.

    All numberings are tried: for small graphs only.
    """
    (matrix, label), (other, wanted) = graph1, graph2
    for permutation in itertools.permutations(range(len(label))):
        renamed, labels = permute_graph(matrix, label, permutation)
        if labels == list(wanted) and np.array_equal(renamed, other):
            return True
    return False


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
