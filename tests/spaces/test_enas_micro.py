import math
import random

import pytest

from hwnas.graph import Architecture
from hwnas.spaces.enas_micro import OPS, EnasMicro
from hwnas.testing.spaces import SpaceSuite


def space(**settings):
    return EnasMicro(EnasMicro.Config(**settings), (3, 32, 32), 10)


class TestEnasMicro(SpaceSuite):
    make = staticmethod(lambda: EnasMicro(EnasMicro.Config(layers=2, channels=4), (3, 8, 8), 10))
    make_small = staticmethod(
        lambda: EnasMicro(EnasMicro.Config(nodes=1, layers=1, channels=2), (3, 8, 8), 10)
    )


@pytest.mark.parametrize("nodes", [1, 2, 5, 7])
def test_size_is_the_product_over_all_answers(nodes):
    """5 ops and i + 2 inputs, twice a node, in two cells: (5^B · (B + 1)!)^4."""
    assert space(nodes=nodes).size() == (5**nodes * math.factorial(nodes + 1)) ** 4


def test_the_papers_figure_counts_the_op_once_for_a_whole_cell():
    """Pham et al., section 2.4: (5 · (B - 2)!)^4 = 1.3e11 for B = 7 states, inputs included.

    That takes five ops once and leaves out each node's last possible input; the number of
    sequences that their controller samples is the larger one above.
    """
    assert (5 * math.factorial(7 - 2)) ** 4 == pytest.approx(1.3e11, rel=0.01)


def test_a_node_picks_both_inputs_and_then_both_ops():
    names = [decision.name for decision in space(nodes=2).decisions()]
    expected = [
        f"{cell}/node{i}/{field}"
        for cell in ("normal", "reduction")
        for i in range(2)
        for field in ("input1", "input2", "op1", "op2")
    ]
    assert names == expected


def arch(op="identity", nodes=5, first=None, second=None):
    answers = {}
    for cell in ("normal", "reduction"):
        for i in range(nodes):
            answers[f"{cell}/node{i}/input1"] = i + 1 if first is None else first
            answers[f"{cell}/node{i}/input2"] = i + 1 if second is None else second
            answers[f"{cell}/node{i}/op1"] = op
            answers[f"{cell}/node{i}/op2"] = op
    return Architecture(answers)


def test_published_depths_and_widths():
    """Six normal cells and two reductions at 2 and 5; channels 20, 40, 80; stem of 60."""
    graph = space().graph(arch())
    specs = graph.weight_specs()
    assert specs["stem/conv/weight"].shape == (60, 3, 3, 3)
    widths = [specs[f"cell{i}/out/bn/scale"].shape[0] for i in range(8)]
    assert widths == [20, 20, 40, 40, 40, 80, 80, 80]
    assert [f"cell{i}/reduce/bn/scale" in specs for i in range(8)] == [
        i in (2, 5) for i in range(8)
    ]


def test_nodes_that_none_reads_are_concatenated_with_unread_inputs():
    """Every node reads input 0: input 1 and all five nodes are loose."""
    specs = space().graph(arch(first=0, second=0)).weight_specs()
    sources = sorted(name for name in specs if name.startswith("cell0/out/conv/from"))
    assert sources == [f"cell0/out/conv/from{i}" for i in range(1, 7)]


def test_a_chain_of_nodes_has_one_loose_end():
    specs = space().graph(arch()).weight_specs()
    assert [n for n in specs if n.startswith("cell0/out/conv/from")] == [
        "cell0/out/conv/from0",
        "cell0/out/conv/from6",
    ]


def test_a_path_has_weights_of_its_own_for_node_slot_op_and_source():
    specs = space().graph(arch("sep_conv_3x3")).weight_specs()
    stage = "cell0/node1/{}/sep_conv_3x3/from2/stage{}/depthwise/weight"
    for slot in "ab":
        for number in (0, 1):
            assert specs[stage.format(slot, number)].shape == (20, 1, 3, 3)


def test_children_share_exactly_the_paths_that_they_have_in_common():
    one = space().graph(arch("sep_conv_3x3")).weight_specs()
    other = space().graph(arch("sep_conv_5x5")).weight_specs()
    common = set(one) & set(other)
    assert common
    assert not any("/sep_conv" in name for name in common)


def test_any_op_can_be_anywhere():
    rng = random.Random(0)
    seen = {value for _ in range(20) for value in space().sample(rng).values()}
    assert set(OPS) <= seen
