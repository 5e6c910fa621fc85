"""How the benchmark's accuracies lie in its space: locality, neighbourhoods, op replacement.

Source: Ying et al. 2019, "NAS-Bench-101", sections 3.2 (operation replacement) and 3.3 (locality:
random-walk autocorrelation as in Weinberger 1990, fitness-distance correlation as in Jones and
Forrest 1995). The paper draws the autocorrelation over the square root of the lag: a random walk is
about that far away after so many steps. Everything works on any function or array of values, so
that a synthetic file or part of the space will do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwnas.benchmarks.nasbench101.cells import Cells
from hwnas.benchmarks.nasbench101.model_spec import ModelSpec
from hwnas.errors import UserInputError
from hwnas.spaces._nasbench101_cell import INPUT, OPS, OUTPUT

#: What a cell is worth, such as its mean validation accuracy.
Value = Callable[[ModelSpec], float]


def edits(spec: ModelSpec, vertices: int = 7, max_edges: int = 9) -> Iterator[ModelSpec]:
    """Yield the valid cells that are one edit of the unpruned matrix away.

    An edit adds or removes one edge, or changes the op of one vertex. Several edits may give
    isomorphic cells, and some the cell itself: that is how a random walk sees the space.

    Args:
        spec: The cell; its original matrix is edited, filled up to `vertices` with vertices that
            have no edges, before the output.
        vertices: Of the space.
        max_edges: Of a valid cell after pruning.
    """
    matrix, ops = padded(spec, vertices)
    for y in range(1, vertices):
        for x in range(y):
            matrix[x, y] ^= 1
            yield from _valid(matrix, ops, max_edges)
            matrix[x, y] ^= 1
    for v in range(1, vertices - 1):
        for op in OPS:
            if op != ops[v]:
                changed = [*ops[:v], op, *ops[v + 1 :]]
                yield from _valid(matrix, changed, max_edges)


def padded(spec: ModelSpec, vertices: int = 7) -> tuple[NDArray[np.int8], list[str]]:
    """Return the original matrix and labels of a cell, filled up to `vertices`.

    Raises:
        UserInputError: The cell has more vertices than that.
    """
    count = len(spec.original_ops)
    if count > vertices:
        raise UserInputError(f"a cell of {count} vertices does not fit a space of {vertices}")
    places = [*range(count - 1), vertices - 1]
    matrix = np.zeros((vertices, vertices), np.int8)
    matrix[np.ix_(places, places)] = spec.original_matrix
    inner = [*spec.original_ops[1:-1], *[OPS[0]] * (vertices - count)]
    return matrix, [INPUT, *inner, OUTPUT]


def _valid(matrix: NDArray[np.int8], ops: list[str], max_edges: int) -> Iterator[ModelSpec]:
    spec = ModelSpec(matrix, ops)
    if spec.valid_spec and spec.edges <= max_edges:
        yield spec


def random_walk(
    start: ModelSpec, steps: int, rng: random.Random, vertices: int = 7, max_edges: int = 9
) -> Iterator[ModelSpec]:
    """Yield the start and `steps` cells after it, each one random valid edit from the one before.

    The matrix that is edited is the unpruned one, so that an edge may grow in two steps.
    """
    matrix, ops = padded(start, vertices)
    spec = ModelSpec(matrix, ops)
    pairs = [(x, y) for y in range(1, vertices) for x in range(y)]
    changes = [(v, shift) for v in range(1, vertices - 1) for shift in range(1, len(OPS))]
    yield spec
    for _ in range(steps):
        while True:
            choice = rng.randrange(len(pairs) + len(changes))
            next_matrix, next_ops = matrix.copy(), list(ops)
            if choice < len(pairs):
                next_matrix[pairs[choice]] ^= 1
            else:
                v, shift = changes[choice - len(pairs)]
                next_ops[v] = OPS[(OPS.index(ops[v]) + shift) % len(OPS)]
            spec = ModelSpec(next_matrix, next_ops)
            if spec.valid_spec and spec.edges <= max_edges:
                break
        matrix, ops = next_matrix, next_ops
        yield spec


def autocorrelation(values: ArrayLike, max_lag: int) -> NDArray[np.float64]:
    """Return the correlation between values `d` steps apart, for d from 0 to `max_lag`.

    Args:
        values: What a random walk met, `[T]`.
        max_lag: Below T.

    Returns:
        `[max_lag + 1]`: the autocovariance around the walk's mean over its variance. Near 1 where
        neighbours are alike, near 0 where they are no more alike than any two cells.

    Raises:
        UserInputError: The walk is too short, or all its values are the same.
    """
    series = np.asarray(values, np.float64)
    if series.ndim != 1 or not 0 <= max_lag < len(series):
        raise UserInputError(f"a walk of {series.shape} values has no lag of {max_lag}")
    centred = series - series.mean()
    variance = float(np.mean(centred**2))
    if variance == 0.0:
        raise UserInputError("all values of the walk are the same: nothing correlates")
    count = len(series)
    lags = range(max_lag + 1)
    return np.array([np.mean(centred[: count - d] * centred[d:]) for d in lags]) / variance


def distance_correlation(cells: Cells, values: ArrayLike, best: int) -> float:
    """Return the fitness-distance correlation: how values fall with the distance from the best.

    Args:
        cells: Some cells.
        values: Their values, `[N]`.
        best: Index of the cell that distances are measured from.

    Returns:
        Pearson's r between edit distance and value; -1 is a perfect slope towards the best.
    """
    pairs = np.stack([np.full(len(cells), best), np.arange(len(cells))], axis=1)
    return float(np.corrcoef(cells.distances(pairs), np.asarray(values, np.float64))[0, 1])


@dataclass(frozen=True)
class Neighbourhood:
    """What is one edit away from a cell.

    Attributes:
        size: Number of different cells, isomorphic ones counted once and the cell itself not.
        mean: Of their values.
        std: Likewise.
        best: The largest of their values.
        better: Share of them that is worth more than the cell.
    """

    size: int
    mean: float
    std: float
    best: float
    better: float

    @property
    def is_peak(self) -> bool:
        """Whether no neighbour is worth more."""
        return self.better == 0.0


def neighbourhood(
    spec: ModelSpec, value: Value, vertices: int = 7, max_edges: int = 9
) -> Neighbourhood:
    """Return statistics of the cells one edit away.

    Raises:
        UserInputError: There are none.
    """
    own = spec.hash_spec(OPS)
    near = {each.hash_spec(OPS): each for each in edits(spec, vertices, max_edges)}
    near.pop(own, None)
    if not near:
        raise UserInputError("the cell has no neighbour in the space")
    values = np.array([value(each) for each in near.values()])
    better = float(np.mean(values > value(spec)))
    return Neighbourhood(
        len(near), float(values.mean()), float(values.std()), float(values.max()), better
    )


@dataclass(frozen=True)
class Replacement:
    """What replacing one op by another does, over all cells and vertices that have it.

    Attributes:
        means: Mean change of the value, `[ops, ops]`: row from, column to; NaN where nothing was
            compared.
        counts: How many pairs of cells were compared, `[ops, ops]`.
    """

    means: NDArray[np.float64]
    counts: NDArray[np.int64]


def replace_ops(
    cells: Cells, values: ArrayLike, ops: int = len(OPS), *, relative: bool = False
) -> Replacement:
    """Compare each cell with the same one with one op replaced, such as 3×3 by 1×1 convolution.

    Args:
        cells: The space, or part of it; replacements that are not in it are left out.
        values: What each cell is worth, `[N]`: an accuracy, or a training time.
        ops: Number of ops.
        relative: Divide each change by the value before it. The paper's figure 4 has the absolute
            change of the accuracy and the relative one of the training time.
    """
    worth = np.asarray(values, np.float64)
    find = _finder(cells)
    totals, counts = np.zeros((ops, ops)), np.zeros((ops, ops), np.int64)
    for vertex in range(1, int(cells.vertices.max()) - 1):
        for old in range(ops):
            inner = vertex < cells.vertices.astype(np.int64) - 1
            chosen = np.flatnonzero(inner & (cells.labels[:, vertex] == old))
            for new in range(ops):
                if new == old or not len(chosen):
                    continue
                labels = cells.labels[chosen].copy()
                labels[:, vertex] = new
                changed = Cells(cells.vertices[chosen], cells.edges[chosen], labels)
                places = find(changed.digests())
                known = places >= 0
                before, after = worth[chosen[known]], worth[places[known]]
                change = (after - before) / before if relative else after - before
                totals[old, new] += float(change.sum())
                counts[old, new] += int(known.sum())
    with np.errstate(invalid="ignore"):
        return Replacement(np.where(counts > 0, totals / counts, np.nan), counts)


def _finder(cells: Cells) -> Callable[[NDArray[np.uint8]], NDArray[np.int64]]:
    """Return a function from digests `[M, 16]` to indices of cells `[M]`, -1 for unknown ones."""
    own = _as_keys(cells.digests())
    order = np.argsort(own, kind="stable")
    ascending = own[order]

    def find(digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        keys = _as_keys(digests)
        places = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
        return np.where(ascending[places] == keys, order[places], -1)

    return find


def _as_keys(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the first half of each digest; no two cells of the space share theirs."""
    return np.ascontiguousarray(digests).view(np.uint64)[:, 0]
