import itertools
import random

import numpy as np
import pytest

from hwnas.benchmarks.nasbench101.analysis import (
    autocorrelation,
    distance_correlation,
    edits,
    neighbourhood,
    random_walk,
    replace_ops,
)
from hwnas.benchmarks.nasbench101.cells import Cells, edit_distance, unique_cells
from hwnas.benchmarks.nasbench101.model_spec import ModelSpec
from hwnas.errors import UserInputError
from hwnas.spaces._nasbench101_cell import CONV1X1, CONV3X3, INPUT, MAXPOOL3X3, OPS, OUTPUT

CHAIN = ModelSpec(np.eye(4, k=1, dtype=int), [INPUT, CONV3X3, CONV1X1, OUTPUT])


def convs(spec):
    """How many 3×3 convolutions the cell has: known to be local."""
    return float(spec.ops.count(CONV3X3))


def test_an_edit_changes_one_edge_or_one_op():
    found = list(edits(CHAIN, vertices=4))
    # Three edges can be added; taking one of the chain's away cuts the output off. 2 x 2 ops.
    assert len(found) == 3 + 4
    for each in found:
        different = int((each.original_matrix != CHAIN.original_matrix).sum())
        different += sum(a != b for a, b in zip(each.original_ops, CHAIN.original_ops, strict=True))
        assert different == 1


def test_too_many_edges_are_no_edit():
    full = ModelSpec(np.triu(np.ones((4, 4), int), 1), [INPUT, CONV3X3, CONV1X1, OUTPUT])
    assert all(each.edges <= 5 for each in edits(full, vertices=4, max_edges=5))
    assert not [each for each in edits(full, vertices=4, max_edges=3) if each.edges > 3]


def test_a_walk_takes_one_valid_edit_at_a_time():
    steps = list(random_walk(CHAIN, 60, random.Random(0), vertices=6, max_edges=7))
    assert len(steps) == 61
    assert steps[0].hash_spec(OPS) == CHAIN.hash_spec(OPS)
    for a, b in itertools.pairwise(steps):
        assert b.valid_spec
        assert b.edges <= 7
        different = int((a.original_matrix != b.original_matrix).sum())
        different += sum(x != y for x, y in zip(a.original_ops, b.original_ops, strict=True))
        assert different == 1


def test_a_walk_of_a_cell_that_does_not_fit_is_refused():
    with pytest.raises(UserInputError, match="does not fit"):
        list(random_walk(CHAIN, 1, random.Random(0), vertices=3))


def test_autocorrelation_of_a_known_process():
    """x[t] = 0.8 x[t-1] + noise has correlation 0.8^d."""
    rng = np.random.default_rng(0)
    x = [0.0]
    for noise in rng.normal(size=50_000):
        x.append(0.8 * x[-1] + noise)
    assert autocorrelation(x, 5) == pytest.approx(0.8 ** np.arange(6), abs=0.03)


def test_a_local_value_correlates_along_a_walk_and_a_random_one_does_not():
    walk = list(random_walk(CHAIN, 2_000, random.Random(1)))
    local = autocorrelation([convs(each) for each in walk], 6)
    assert local[0] == pytest.approx(1.0)
    assert local[1] > 0.7
    assert local[1] > local[3] > local[6]
    noise = np.random.default_rng(0).random(len(walk))
    assert abs(autocorrelation(noise, 1)[1]) < 0.1


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [1.0], [[1.0, 2.0]]])
def test_a_walk_that_says_nothing_is_refused(values):
    with pytest.raises(UserInputError):
        autocorrelation(values, 1)


def test_a_neighbourhood_counts_isomorphic_cells_once():
    near = {each.hash_spec(OPS) for each in edits(CHAIN, 4)} - {CHAIN.hash_spec(OPS)}
    found = neighbourhood(CHAIN, convs, vertices=4)
    assert found.size == len(near)
    assert found.best == 2.0
    assert 0 < found.better < 1
    assert not found.is_peak
    assert neighbourhood(CHAIN, lambda spec: -edit_distance(spec, CHAIN), vertices=4).is_peak


def test_values_that_fall_with_the_distance_have_a_correlation_of_minus_one():
    cells = unique_cells(4)
    best = 40
    far = cells.distances([(best, i) for i in range(len(cells))]).astype(float)
    assert distance_correlation(cells, -far, best) == pytest.approx(-1.0)
    assert far[best] == 0
    assert far.max() > 3


def test_replacing_an_op_does_what_the_values_say():
    """3 for each 3×3, 1 for each 1×1 convolution, nothing for a pooling."""
    cells = unique_cells(5)
    worth = {CONV3X3: 3.0, CONV1X1: 1.0, MAXPOOL3X3: 0.0, INPUT: 0.0, OUTPUT: 0.0}
    values = [sum(worth[op] for op in cells.ops(i)) for i in range(len(cells))]
    found = replace_ops(cells, values)
    expected = [[worth[new] - worth[old] for new in OPS] for old in OPS]
    off = ~np.eye(3, dtype=bool)
    assert found.means[off] == pytest.approx(np.array(expected)[off])
    assert np.isnan(found.means[~off]).all()
    labels = cells.labels[:, 1:7]
    inner = np.arange(1, 7) < cells.vertices[:, None].astype(int) - 1
    for old in range(3):
        count = int((inner & (labels == old)).sum())
        assert found.counts[old].tolist() == [0 if new == old else count for new in range(3)]


def test_a_relative_change_is_a_share_of_what_was_before():
    """Each value is 10 times 2 for each 3×3 convolution: replacing one halves it."""
    cells = unique_cells(4)
    values = [10.0 * 2.0 ** cells.ops(i).count(CONV3X3) for i in range(len(cells))]
    found = replace_ops(cells, values, relative=True).means
    assert found[0, 1:] == pytest.approx([-0.5, -0.5])
    assert found[1:, 0] == pytest.approx([1.0, 1.0])
    assert found[1, 2] == found[2, 1] == 0.0


def test_replacements_that_are_not_in_the_table_are_left_out():
    cells = unique_cells(3)
    part = Cells(cells.vertices[:3], cells.edges[:3], cells.labels[:3])
    found = replace_ops(part, np.arange(3.0))
    assert 0 < found.counts.sum() < replace_ops(cells, np.zeros(len(cells))).counts.sum()
