import math
import random

import pytest
import torch

from hwnas.errors import UserInputError
from hwnas.graph import EVAL, TRAIN
from hwnas.graph.counts import params
from hwnas.spaces.enas_rnn import EnasRnn, from_numbers
from hwnas.spaces.lstm import LstmStack
from hwnas.supernet.run import run, run_all
from hwnas.supernet.weights import WeightStore
from hwnas.testing.spaces import SpaceSuite


def space(steps=3, vocabulary=11, **settings):
    return EnasRnn(EnasRnn.Config(**{"hidden": 4, **settings}), (steps,), vocabulary)


CORRECTED = {
    "first_node": "tanh",
    "output": "later",
    "weights_per": "function",
    "clip_hidden": None,
    "onnx": "scan",
    "bound": 0.5,
}


class TestEnasRnn(SpaceSuite):
    make = staticmethod(lambda: space(nodes=5, norm=True))
    make_small = staticmethod(lambda: space(nodes=3))
    make_exported = staticmethod(lambda: space(nodes=4, norm=True, bound=0.5))


class TestEnasRnnAsCorrected(SpaceSuite):
    """The form of enas_lm, exported as a Scan."""

    make = staticmethod(lambda: space(nodes=4, **CORRECTED))
    make_small = staticmethod(lambda: space(nodes=2, **CORRECTED))
    make_exported = make


class TestLstm(SpaceSuite):
    make = staticmethod(lambda: LstmStack(LstmStack.Config(hidden=4), (3,), 11))
    make_small = make
    make_exported = staticmethod(
        lambda: LstmStack(LstmStack.Config(hidden=4, bound=None), (3,), 11)
    )


@pytest.mark.parametrize("nodes", [1, 2, 5, 12])
def test_the_size_that_the_paper_states_counts_an_input_of_the_first_node(nodes):
    """Searched first node: 4^N · (N − 1)!; with a fixed one before the N (enas_lm): 4^N · N!."""
    assert space(nodes=nodes).size() == 4**nodes * math.factorial(nodes - 1)
    assert space(nodes=nodes, first_node="tanh").size() == 4**nodes * math.factorial(nodes)


def test_the_papers_ten_to_the_fifteen_is_the_size_without_that_input():
    assert 4**12 * math.factorial(11) == pytest.approx(6.7e14, rel=0.01)
    assert 4**12 * math.factorial(12) == pytest.approx(8.0e15, rel=0.01)


def test_the_controller_of_the_port_answers_23_decisions():
    names = [each.name for each in space(nodes=12).decisions()]
    assert len(names) == 23
    assert names[:4] == [
        "node0/activation",
        "node1/previous",
        "node1/activation",
        "node2/previous",
    ]


def test_the_published_cell_reads_as_in_the_papers_figure():
    cell = from_numbers("0 0 0 1 1 2 1 2 0 2 0 5 1 1 0 6 1 8 1 8 1 8 1")
    assert cell["node0/activation"] == "tanh"
    assert [cell[f"node{i}/previous"] for i in range(1, 12)] == [0, 1, 2, 2, 2, 5, 1, 6, 8, 8, 8]
    functions = [cell[f"node{i}/activation"] for i in range(1, 12)]
    assert "".join(each[0] for each in functions) == "tRRttRtRRRR"


def test_enas_lm_counts_its_published_cell_of_800_units():
    """10,000 · 800 words, tied; 4 · 800² of the first node; 8 nodes of 2 · 800²."""
    lm = EnasRnn(
        EnasRnn.Config(hidden=800, nodes=8, first_node="tanh", output="later", decoder_bias=False),
        (35,),
        10_000,
    )
    graph = lm.graph(lm.sample(random.Random(0)))
    assert params(graph) == 10_000 * 800 + 4 * 800**2 + 8 * 2 * 800**2


def test_images_are_refused_and_so_is_an_embedding_that_cannot_be_tied():
    with pytest.raises(UserInputError, match="for text"):
        EnasRnn(EnasRnn.Config(), (3, 8, 8), 10)
    with pytest.raises(UserInputError, match="tied"):
        space(embedding=5)
    assert space(embedding=5, tied=False).graph(space(nodes=12).sample(random.Random(0)))


@pytest.mark.parametrize("carry", ["output", "last"])
def test_a_state_over_the_limit_is_scaled_down_to_it(carry):
    """The fused kernel and the step-by-step form agree, and both clip."""
    x = torch.randint(0, 11, (3, 6))
    results = []
    for output in ("leaves", "later"):  # later: never fused
        small = space(6, nodes=2, bound=2.0, clip_hidden=0.3, carry=carry, output=output)
        architecture = from_numbers("1 0 2")
        outputs = run_all(small.graph(architecture), WeightStore(0), x, EVAL)
        assert outputs[1].norm(dim=-1).max() <= 0.3 + 1e-6
        results.append(outputs[0])
    torch.testing.assert_close(*results)  # node 1 is the only leaf, and the only later node
    free = space(6, nodes=2, bound=2.0, clip_hidden=None, carry=carry)
    state = run_all(free.graph(from_numbers("1 0 2")), WeightStore(0), x, EVAL)[1]
    assert state.norm(dim=-1).max() > 0.3


def test_two_windows_with_the_state_are_one_long_window():
    """The state of a window is all that the next one needs."""
    architecture = from_numbers("0 0 1 1 3")
    store, x = WeightStore(0), torch.randint(0, 11, (2, 8))
    whole = run(space(8, nodes=3).graph(architecture), store, x)
    graph = space(4, nodes=3).graph(architecture)
    first, state, *_ = run_all(graph, store, x[:, :4])
    second = run_all(graph, store, x[:, 4:], carried={"state": state})[0]
    torch.testing.assert_close(torch.cat([first, second], 1), whole)


def test_variational_dropout_drops_the_same_features_at_every_step():
    small = space(5, nodes=2, output_dropout=0.5, clip_hidden=None)
    graph, store = small.graph(from_numbers("0 0 0")), WeightStore(0)
    torch.manual_seed(0)
    _, _, dropped, raw = run_all(graph, store, torch.randint(0, 11, (4, 5)), TRAIN)
    zero = dropped == 0
    assert zero.any()
    assert not zero.all()
    assert (zero == zero[:, :1]).all()
    torch.testing.assert_close(dropped[~zero], 2 * raw[~zero])


def test_cells_that_differ_in_an_activation_share_the_edges_matrix_or_do_not():
    one, other = from_numbers("0 0 1"), from_numbers("0 0 2")
    for weights_per, shares in (("edge", True), ("function", False)):
        small = space(nodes=2, weights_per=weights_per)
        specs = [set(small.graph(each).weight_specs()) for each in (one, other)]
        assert (specs[0] == specs[1]) is shares
