"""A file in the published format with invented numbers, for tests, examples and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hwnas.benchmarks.nasbench101.cells import Cells
from hwnas.benchmarks.nasbench101.tfrecord import (
    Evaluation,
    Metrics,
    Row,
    adjacency_text,
    write_rows,
)


def write_synthetic(
    path: Path, cells: Cells, *, epochs: Sequence[int] = (108,), repeats: int = 3, seed: int = 0
) -> None:
    """Write cells with random metrics: the format is the published one, the figures are not.

    Args:
        path: The file.
        cells: What it holds; `unique_cells()` for as many records as the published one.
        epochs: Lengths of training; the full published file has 4, 12, 36 and 108.
        repeats: Trainings of each length.
        seed: Seed of the figures.
    """
    write_rows(path, _rows(cells, epochs, repeats, np.random.default_rng(seed)))


def _rows(
    cells: Cells, epochs: Sequence[int], repeats: int, rng: np.random.Generator
) -> Iterator[Row]:
    for index, name in enumerate(cells.hashes()):
        adjacency = adjacency_text(cells.matrix(index))
        operations = ",".join(cells.ops(index))
        parameters = int(rng.integers(200_000, 50_000_000))
        for length in epochs:
            for draw in rng.random((repeats, 3, 4)).tolist():
                evaluations: list[Evaluation] = [
                    (length * point / 2, 20.0 * length * point * time, train, valid, test)
                    for point, (time, train, valid, test) in enumerate(draw)
                ]
                metrics = Metrics(evaluations, parameters, 2.0 * evaluations[-1][1])
                yield Row(name, length, adjacency, operations, metrics)
