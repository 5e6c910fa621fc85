"""Names of the published package that scripts use, beside those of `api.NASBench`."""

import copy
import itertools
import random
import sys
from types import ModuleType

import numpy as np
import pytest

from hwnas.benchmarks.nasbench101 import api, config, graph_util, model_spec
from hwnas.benchmarks.nasbench101.cells import unique_cells
from hwnas.errors import UserInputError
from hwnas.spaces._nasbench101_cell import CONV1X1, CONV3X3, INPUT, MAXPOOL3X3, OUTPUT

# The last vertex but one is on no path and is pruned.
SPEC = api.ModelSpec(
    [[0, 1, 1, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]],
    [INPUT, CONV1X1, MAXPOOL3X3, CONV3X3, OUTPUT],
)


class Digraph:
    """What `ModelSpec.visualize` uses of graphviz."""

    def __init__(self):
        self.nodes, self.edges = {}, set()

    def node(self, name, label):
        self.nodes[name] = label

    def edge(self, tail, head):
        self.edges.add((tail, head))


def test_a_cell_is_drawn_pruned(monkeypatch):
    module = ModuleType("graphviz")
    module.Digraph = Digraph
    monkeypatch.setitem(sys.modules, "graphviz", module)
    drawn = SPEC.visualize()
    assert drawn.nodes == {"0": "input", "1": CONV1X1, "2": MAXPOOL3X3, "3": "output"}
    assert drawn.edges == {("0", "1"), ("0", "2"), ("0", "3"), ("1", "2"), ("2", "3")}
    with pytest.raises(ValueError, match="cannot be reached"):
        api.ModelSpec([[0, 0], [0, 0]], [INPUT, OUTPUT]).visualize()


def test_without_graphviz_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(UserInputError, match="graphviz") as caught:
        SPEC.visualize()
    assert "pip install graphviz" in caught.value.hint


def test_the_modules_of_lib_have_their_names():
    assert model_spec.ModelSpec is api.ModelSpec
    assert model_spec.is_upper_triangular([[0, 1], [0, 0]])
    assert not model_spec.is_upper_triangular(np.eye(9))
    built = config.build_config()
    assert (built["module_vertices"], built["max_edges"], built["num_repeats"]) == (7, 9, 3)
    assert built["available_ops"] == [CONV3X3, CONV1X1, MAXPOOL3X3]


def graph(bits, vertices):
    return np.fromfunction(graph_util.gen_is_edge_fn(bits), (vertices, vertices), dtype=np.int8)


def test_bits_are_edges_in_the_published_order():
    assert graph(0b010010, 4).tolist() == [
        [False, False, True, False],
        [False, False, False, True],
        [False, False, False, False],
        [False, False, False, False],
    ]
    wide = graph(1 << (3 + 19 * 20 // 2), 21)  # the edge from 3 to 20: int8 is too small
    assert np.argwhere(wide).tolist() == [[3, 20]]
    assert graph_util.num_edges(graph(0b111, 3)) == 3


def test_full_graphs_are_the_enumerated_ones():
    full = {bits for bits in range(64) if graph_util.is_full_dag(graph(bits, 4))}
    cells = unique_cells(4)  # no two of these graphs are isomorphic for all labels
    assert full == set(cells.edges[cells.vertices == 4].tolist())


def test_isomorphic_graphs_have_the_same_hash_and_others_do_not():
    rng = random.Random(0)
    matrix, labels = graph(0b101101, 4), [-1, 0, 1, -2]
    for order in itertools.permutations(range(4)):
        renamed = graph_util.permute_graph(matrix, labels, order)
        assert graph_util.is_isomorphic((matrix, labels), renamed)
        assert graph_util.hash_module(*renamed) == graph_util.hash_module(matrix, labels)
    for _ in range(30):
        a, b = (graph(rng.randrange(64), 4) for _ in range(2))
        same = graph_util.hash_module(a, labels) == graph_util.hash_module(b, labels)
        assert same == graph_util.is_isomorphic((a, labels), (b, labels))


def test_many_ops_are_hashed_as_plain_python_does():
    """More than a signed byte can number."""
    ops = [f"op{i}" for i in range(200)]
    spec = api.ModelSpec([[0, 1, 0], [0, 0, 1], [0, 0, 0]], [INPUT, "op199", OUTPUT])
    expected = graph_util.hash_module([[0, 1, 0], [0, 0, 1], [0, 0, 0]], [-1, 199, -2])
    assert spec.hash_spec(ops) == expected


def test_a_mutation_as_in_the_published_notebook():
    matrix, ops = copy.deepcopy(SPEC.original_matrix), copy.deepcopy(SPEC.original_ops)
    matrix[0, 3] = 1 - matrix[0, 3]
    ops[1] = CONV3X3
    changed = api.ModelSpec(matrix, ops)
    assert changed.ops == [INPUT, CONV3X3, MAXPOOL3X3, CONV3X3, OUTPUT]
    assert SPEC.ops == [INPUT, CONV1X1, MAXPOOL3X3, OUTPUT]
