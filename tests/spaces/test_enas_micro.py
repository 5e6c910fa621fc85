import math
import random

import pytest
from pydantic import ValidationError

from hwnas.graph import Architecture
from hwnas.graph.counts import params
from hwnas.graph.ops.drop_path import DropPath
from hwnas.spaces.enas_micro import OPS, EnasMicro, arc_architecture
from hwnas.testing.spaces import SpaceSuite


def space(**settings):
    return EnasMicro(EnasMicro.Config(**settings), (3, 32, 32), 10)


class TestEnasMicro(SpaceSuite):
    make = staticmethod(lambda: EnasMicro(EnasMicro.Config(layers=2, channels=4), (3, 8, 8), 10))
    make_small = staticmethod(
        lambda: EnasMicro(EnasMicro.Config(nodes=1, layers=1, channels=2), (3, 8, 8), 10)
    )


class TestEnasMicroFinal(SpaceSuite):
    make = staticmethod(
        lambda: EnasMicro(
            EnasMicro.Config(form="final", layers=2, channels=4, auxiliary=True, drop_path=0.4),
            (3, 8, 8),
            10,
        )
    )
    make_exported = staticmethod(
        lambda: EnasMicro(
            EnasMicro.Config(
                form="final", nodes=3, layers=1, channels=2, auxiliary=True, drop_path=0.4
            ),
            (3, 8, 8),
            10,
        )
    )
    # The picks, and so the size, are those of the other form.
    test_size_is_the_number_of_architectures = None


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


def final_space(**settings):
    found = EnasMicro.published()["enas_micro_cifar10"]
    config = EnasMicro.Config.model_validate({**found.settings, **settings})
    return EnasMicro(config, found.input_shape, found.classes), found.architecture


def test_the_final_network_has_the_authors_count_but_for_the_last_bias():
    """Their code prints 'Model has 3894372 params' and 'Aux head uses 494848 params'."""
    space, architecture = final_space()
    graph = space.graph(architecture)
    assert params(graph) == 3_894_372 + 10
    with_head = sum(
        math.prod(spec.shape)
        for name, spec in graph.weight_specs().items()
        if name.startswith("auxiliary") and spec.is_trainable
    )
    assert with_head == 494_848 + 10


def test_an_arc_is_read_as_input_op_input_op():
    architecture = arc_architecture((1, 4, 0, 2), (0, 0, 1, 3))
    assert dict(architecture) == {
        "normal/node0/input1": 1,
        "normal/node0/input2": 0,
        "normal/node0/op1": "identity",
        "normal/node0/op2": "avg_pool_3x3",
        "reduction/node0/input1": 0,
        "reduction/node0/input2": 1,
        "reduction/node0/op1": "sep_conv_3x3",
        "reduction/node0/op2": "max_pool_3x3",
    }


def test_final_cells_concatenate_and_reduction_cells_stride():
    """Outputs of 36 channels a loose state: five nodes of the arc's cells are unread."""
    space, architecture = final_space()
    graph = space.graph(architecture)
    sizes = {}
    for node in graph.nodes:
        if node.weights.startswith("cell"):
            sizes[node.weights.split("/")[0]] = node.shape[1]
    assert [sizes[f"cell{i}"] for i in range(17)] == [32] * 5 + [16] * 6 + [8] * 6
    specs = graph.weight_specs()
    assert specs["head720/linear/weight"].shape == (10, 5 * 144)
    assert not any(name.startswith(("cell5/reduce", "cell5/out")) for name in specs)


def test_drop_path_grows_with_the_cell_and_spares_identities():
    """Rate (layer + 1) / 17 of 0.4; eight dropped branches in a cell with two identities."""
    space, architecture = final_space()
    rates = [
        node.op.rate for node in space.graph(architecture).nodes if isinstance(node.op, DropPath)
    ]
    expected = [0.4 * (layer + 1) / 17 for layer in range(17)]
    assert sorted(set(rates)) == pytest.approx(expected)
    assert [rates.count(rate) for rate in sorted(set(rates))] == [
        9 if layer in (5, 11) else 8 for layer in range(17)
    ]


def test_drop_path_and_the_auxiliary_head_change_nothing_that_is_exported():
    space, architecture = final_space()
    plain, _ = final_space(auxiliary=False, drop_path=0.0)
    trained, other = space.graph(architecture), plain.graph(architecture)
    assert params(trained) == params(other)
    assert trained.inference().weight_specs() == other.weight_specs()
    assert len(trained.outputs) == 2


def test_an_unread_input_of_a_reduction_cell_is_reduced_without_a_relu():
    chain = arch("max_pool_3x3", nodes=2, first=1, second=1)
    settings = {"form": "final", "nodes": 2, "layers": 3, "channels": 4}
    specs = space(**settings).graph(chain).weight_specs()
    assert "cell1/loose0/even/weight" in specs
    assert "cell0/loose0/even/weight" not in specs


def test_drop_path_is_of_the_final_form():
    with pytest.raises(ValidationError, match="only form final"):
        space(drop_path=0.2)
