import json
import random
from pathlib import Path

import pytest

from hwnas.errors import UserInputError
from hwnas.graph.counts import params
from hwnas.spaces._nasbench101_cell import CONV1X1, CONV3X3, INPUT, MAXPOOL3X3, OUTPUT, Cell, usable
from hwnas.spaces.nasbench101 import NasBench101, architecture_of
from hwnas.testing.spaces import SpaceSuite

ECNAS = Path(__file__).parents[2].parent / "shared/data/nasbench/ecnas_4v5v_4epochs.parquet"
#: The coding that data/README.md names; the `params` column confirms it for every cell.
LABELS = {-1: INPUT, -2: OUTPUT, 0: CONV3X3, 1: CONV1X1, 2: MAXPOOL3X3}


def make(channels=8, size=8, **settings):
    settings = {"stacks": 2, "cells": 1, **settings}
    return NasBench101(NasBench101.Config(channels=channels, **settings), (3, size, size), 10)


class TestNasBench101(SpaceSuite):
    make = staticmethod(make)
    make_small = staticmethod(lambda: make(vertices=4, max_edges=4))
    make_exported = staticmethod(lambda: make(channels=5, size=4))

    def test_its_size_is_the_published_number_of_matrices_and_labels(self):
        space = NasBench101(NasBench101.Config(), (3, 32, 32), 10)
        assert space.size() == 2**21 * 3**5  # section 2.2: about 510 M


def test_samples_and_neighbours_are_cells_of_the_benchmark():
    space, rng = make(), random.Random(0)
    for _ in range(100):
        architecture = space.sample(rng)
        assert space.is_valid(architecture)
        assert space.is_valid(space.neighbour(architecture, rng))


def test_any_answer_stands_for_a_valid_cell():
    space, rng = make(), random.Random(1)
    repaired = 0
    for _ in range(300):
        architecture, _ = space.realise(lambda d: d.decode(rng.randrange(d.count)))
        cell = space.cell(architecture)
        assert cell.pruned() == cell
        assert cell.edges <= 9
        repaired += not space.is_valid(architecture)
    assert repaired > 10


def test_a_cell_that_is_cut_off_becomes_one_edge():
    cell = Cell(((), (), (1,)), (INPUT, CONV3X3, OUTPUT))
    assert usable(cell, 9) == Cell(((), (0,)), (INPUT, OUTPUT))


def test_the_longest_edge_that_nothing_needs_goes_first():
    full = Cell(((), (0,), (0, 1), (0, 1, 2)), (INPUT, CONV3X3, CONV1X1, OUTPUT))
    assert usable(full, 5) == full.without(0, 3)
    assert usable(full, 3).edges == 3


def test_a_cell_comes_back_from_its_picks():
    matrix = [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    architecture = architecture_of(matrix, [INPUT, MAXPOOL3X3, OUTPUT])
    cell = make().cell(architecture)
    assert cell.matrix() == matrix
    assert cell.ops == (INPUT, MAXPOOL3X3, OUTPUT)


@pytest.mark.parametrize("ops", [[INPUT, "conv7x7", OUTPUT], [INPUT, *[CONV3X3] * 6, OUTPUT]])
def test_a_cell_that_does_not_fit_is_refused(ops):
    matrix = [[int(y > x) for y in range(len(ops))] for x in range(len(ops))]
    with pytest.raises(UserInputError):
        architecture_of(matrix, ops)


def test_channels_are_shared_out_as_published():
    """Three vertices share 128: 43, 43, 42; what feeds a 43 and a 42 has 43, and is truncated."""
    cell = Cell(
        ((), (0,), (1,), (1,), (0,), (2, 3, 4)),
        (INPUT, CONV1X1, CONV3X3, CONV3X3, CONV1X1, OUTPUT),
    )
    assert cell.channels(128) == (0, 43, 43, 43, 42, 128)


def test_a_narrower_vertex_reads_the_first_channels():
    cell = Cell(((), (0,), (0, 1), (1, 2)), (INPUT, CONV3X3, CONV3X3, OUTPUT))
    assert cell.channels(5) == (0, 3, 2, 5)
    space = make(channels=5)
    graph = space.graph(architecture_of(cell.matrix(), cell.ops))
    kinds = [node.op.kind for node in graph.nodes]
    assert kinds.count("slice") == 1  # 10 channels of the second stack divide


@pytest.mark.skipif(not ECNAS.is_file(), reason="../shared/data/nasbench is not here")
def test_all_cells_of_ec_nas_have_the_parameters_that_it_lists():
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(ECNAS, columns=["hash", "adjacency", "labels", "params"])
    cells = {row["hash"]: row for row in table.to_pylist()}
    assert len(cells) == 2532
    space = NasBench101(NasBench101.Config(), (3, 32, 32), 10)
    different = []
    for name, row in cells.items():
        ops = [LABELS[label] for label in json.loads(row["labels"])]
        graph = space.graph(architecture_of(json.loads(row["adjacency"]), ops))
        if params(graph) != row["params"]:
            different.append((name, params(graph), row["params"]))
    assert not different
