import itertools
import random

import numpy as np
import pytest

from hwnas._core import cell_hash, cell_hashes, enumerate_cells
from hwnas.benchmarks.nasbench101 import api
from hwnas.benchmarks.nasbench101.cells import Cells, edit_distance, unique_cells
from hwnas.benchmarks.nasbench101.graph_util import hash_module
from hwnas.spaces._nasbench101_cell import CONV1X1, CONV3X3, INPUT, MAXPOOL3X3, OPS, OUTPUT
from hwnas.spaces.nasbench101 import NasBench101

INCEPTION = api.ModelSpec(
    matrix=[
        [0, 1, 1, 1, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 0],
    ],
    ops=[INPUT, CONV1X1, CONV3X3, CONV3X3, CONV3X3, MAXPOOL3X3, OUTPUT],
)


def random_spec(rng, vertices, density=0.5, ops=OPS):
    matrix = np.zeros((vertices, vertices), int)
    for x, y in itertools.combinations(range(vertices), 2):
        matrix[x, y] = rng.random() < density
    return api.ModelSpec(matrix, [INPUT, *(rng.choice(ops) for _ in range(vertices - 2)), OUTPUT])


def test_the_hash_is_the_published_one():
    assert INCEPTION.hash_spec(OPS) == "28cfc7874f6d200472e1a9dcd8650aa0"


@pytest.mark.parametrize("vertices", range(2, 9))
def test_the_compiled_hash_is_that_of_plain_python(vertices):
    """Dense and sparse graphs, unconnected ones too, and labels of one, two and three digits."""
    rng = random.Random(vertices)
    for _ in range(60):
        matrix = np.triu(np.array(rng.choices((0, 1), k=vertices**2)).reshape(vertices, -1), 1)
        labels = [-1, *rng.choices((0, 1, 2, 9, 10, 99, 100, 127), k=vertices - 2), -2]
        edges = sum(
            int(matrix[x, y]) << (x + y * (y - 1) // 2)
            for x, y in itertools.combinations(range(vertices), 2)
        )
        expected = hash_module(matrix, labels)
        assert cell_hash(edges, bytes(each & 255 for each in labels)) == expected
        row = np.array([labels + [77] * (8 - vertices)], np.int8)  # what stands behind is not read
        found = cell_hashes(np.array([vertices], np.uint8), np.array([edges], np.uint32), row)
        assert found.tobytes().hex() == expected


def test_a_cell_of_more_vertices_is_hashed_in_python():
    spec = random_spec(random.Random(0), 10, 0.9)
    labels = [-1, *(OPS.index(op) for op in spec.ops[1:-1]), -2]
    assert len(spec.ops) > 8
    assert spec.hash_spec(OPS) == hash_module(spec.matrix, labels)


def test_the_hash_ignores_the_order_of_vertices_and_what_is_pruned():
    a = api.ModelSpec([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0] * 4],
                      [INPUT, CONV3X3, CONV1X1, OUTPUT])  # fmt: skip
    b = api.ModelSpec([[0, 1, 1, 1, 0], [0, 0, 0, 0, 1], [0] * 5, [0, 0, 0, 0, 1], [0] * 5],
                      [INPUT, CONV1X1, CONV3X3, CONV3X3, OUTPUT])  # fmt: skip
    assert a.hash_spec(OPS) == b.hash_spec(OPS)
    assert b.ops == [INPUT, CONV1X1, CONV3X3, OUTPUT]
    assert a.hash_spec(OPS) != a.hash_spec((MAXPOOL3X3, CONV1X1, CONV3X3))


def test_numpy_integers_and_booleans_hash_alike():
    for dtype in (bool, np.int8, np.int64, float):
        spec = api.ModelSpec(INCEPTION.original_matrix.astype(dtype), INCEPTION.original_ops)
        assert spec.hash_spec(OPS) == INCEPTION.hash_spec(OPS)


def test_a_kept_hash_is_not_that_of_changed_labels():
    spec = random_spec(random.Random(3), 5, 1.0)
    before = spec.hash_spec(OPS)
    spec.ops[1] = next(op for op in OPS if op != spec.ops[1])
    assert spec.hash_spec(OPS) != before
    with pytest.raises(ValueError, match="read-only"):
        spec.matrix[0, 1] = 0


@pytest.mark.parametrize(
    ("matrix", "ops", "why"),
    [
        ([[0, 1]], [INPUT, OUTPUT], "square"),
        ([[0, 1], [1, 0]], [INPUT, OUTPUT], "upper triangular"),
        ([[1, 1], [0, 0]], [INPUT, OUTPUT], "upper triangular"),
        ([[0, 1], [0, 0]], [INPUT, CONV1X1, OUTPUT], "length of ops"),
    ],
)
def test_what_is_no_cell_is_refused(matrix, ops, why):
    with pytest.raises(ValueError, match=why):
        api.ModelSpec(matrix, ops)


def test_an_invalid_cell_has_neither_matrix_nor_hash():
    spec = api.ModelSpec([[0, 1, 0], [0] * 3, [0] * 3], [INPUT, CONV1X1, OUTPUT])
    assert (spec.valid_spec, spec.matrix, spec.ops) == (False, None, None)
    with pytest.raises(ValueError, match="no hash"):
        spec.hash_spec(OPS)
    with pytest.raises(ValueError, match="not in"):
        INCEPTION.hash_spec((CONV1X1, MAXPOOL3X3))


@pytest.mark.parametrize(("vertices", "count"), [(2, 1), (3, 7), (4, 91), (5, 2_532)])
def test_there_are_as_many_cells_as_published(vertices, count):
    cells = unique_cells(vertices)
    assert len(set(cells.hashes())) == len(cells) == count


def test_enumeration_finds_each_class_that_hashing_all_graphs_finds():
    """All 4-vertex matrices with all labels, kept by hash: first come, first kept."""
    found = {}
    for bits in range(2**6):
        matrix = [[bits >> (x + y * (y - 1) // 2) & 1 if x < y else 0 for y in range(4)]
                  for x in range(4)]  # fmt: skip
        for labels in itertools.product(range(3), repeat=2):
            spec = api.ModelSpec(matrix, [INPUT, *(OPS[i] for i in labels), OUTPUT])
            if spec.valid_spec and len(spec.ops) == 4 and spec.edges <= 9:
                found.setdefault(spec.hash_spec(OPS), (bits, labels))
    cells = unique_cells(4)
    mine = {
        name: (int(cells.edges[i]), tuple(cells.labels[i, 1:3].tolist()))
        for i, name in enumerate(cells.hashes())
        if cells.vertices[i] == 4
    }
    assert mine == found


@pytest.mark.slow
def test_the_whole_space_has_423624_cells():
    cells = unique_cells()
    assert len(np.unique(cells.digests(), axis=0)) == len(cells) == 423_624


@pytest.mark.parametrize("arguments", [(1, 9, 3), (8, 9, 3), (4, 9, 0), (4, 9, 17)])
def test_a_space_that_cannot_be_enumerated_is_refused(arguments):
    with pytest.raises(ValueError, match="is not from"):
        enumerate_cells(*arguments)


@pytest.mark.parametrize("call", [(8, b"\xff\xfe"), (1, b"\xff"), (0, bytes(9))])
def test_the_core_refuses_what_is_no_cell(call):
    with pytest.raises(ValueError, match="vertices"):
        cell_hash(*call)


def test_cells_give_back_the_specs_they_were_made_of():
    rng = random.Random(5)
    specs = [s for s in (random_spec(rng, 6) for _ in range(40)) if s.valid_spec]
    cells = Cells.of(specs)
    assert cells.hashes() == [spec.hash_spec(OPS) for spec in specs]
    assert [each.ops for each in cells] == [each.ops for each in specs]
    assert all((a.matrix == b.matrix).all() for a, b in zip(cells, specs, strict=True))


def reference_distance(a, b):
    """The definition, by trying all matches of the vertices between."""
    size = max(len(a.ops), len(b.ops))

    def grown(spec):
        places = [*range(len(spec.ops) - 1), size - 1]
        matrix = np.zeros((size, size), int)
        matrix[np.ix_(places, places)] = spec.matrix
        return matrix, [*spec.ops[:-1], *[None] * (size - len(spec.ops)), spec.ops[-1]]

    (left, left_ops), (right, right_ops) = grown(a), grown(b)
    best = size**2
    for inner in itertools.permutations(range(1, size - 1)):
        order = [0, *inner, size - 1]
        pairs = [(left_ops[v], right_ops[i]) for i, v in enumerate(order)]
        labels = sum(a != b for a, b in pairs if a is not None and b is not None)
        best = min(best, labels + int(np.abs(left[np.ix_(order, order)] - right).sum()))
    return best


def test_the_edit_distance_is_that_of_its_definition():
    rng = random.Random(7)
    specs = [s for s in (random_spec(rng, rng.randint(2, 6)) for _ in range(60)) if s.valid_spec]
    for a, b in itertools.islice(itertools.combinations(specs, 2), 150):
        assert edit_distance(a, b) == edit_distance(b, a) == reference_distance(a, b)
    assert all(edit_distance(a, a) == 0 for a in specs)


def test_a_spec_and_an_architecture_of_the_space_are_two_forms_of_one_cell():
    space = NasBench101(NasBench101.Config(), (3, 32, 32), 10)
    spec = api.ModelSpec.from_architecture(space, INCEPTION.to_architecture())
    assert spec.hash_spec(OPS) == INCEPTION.hash_spec(OPS)
