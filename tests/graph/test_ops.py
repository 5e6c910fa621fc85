import pytest
import torch

from hwnas.errors import ShapeError
from hwnas.graph import EVAL, OPS, GraphBuilder
from hwnas.graph.counts import macs
from hwnas.graph.ops.mixed_op import Candidate
from hwnas.graph.ops.pool import MaxPool
from hwnas.graph.ops.sep_conv import SepConv
from hwnas.graph.ops.tree_cell import NAS_CELL
from hwnas.testing.ops import OpSuite, graph_of

IMAGE = (4, 6, 6)
ODD = (4, 7, 5)
ACTIVATIONS = (
    "relu", "relu6", "sigmoid", "tanh", "swish", "hard_sigmoid", "hard_swish", "gelu",
    "leaky_relu", "elu",
)  # fmt: skip


TREE = {
    "combine": ("add", "elem_mult", "elem_mult"),
    "activations": ("tanh", "relu", "sigmoid"),
    "inject_at": 0,
    "inject_combine": "add",
    "inject_activation": "relu",
    "cell_at": 1,
}


class TestConv(OpSuite):
    cases = (
        ("conv", {"channels": 6, "kernel": 3}, [IMAGE]),
        ("conv", {"channels": 6, "kernel": 5, "stride": 2}, [ODD]),
        ("conv", {"channels": 4, "kernel": 3, "groups": 4}, [ODD]),
        ("conv", {"channels": 8, "kernel": 1, "groups": 2, "stride": 2}, [IMAGE]),
        ("conv", {"channels": 3, "kernel": (1, 7), "stride": (1, 2), "bias": True}, [ODD]),
        ("conv", {"channels": 3, "kernel": 3, "stride": (2, 1), "padding": "valid"}, [ODD]),
        ("conv", {"channels": 3, "kernel": 3, "dilation": 2, "bias": True}, [ODD]),
        ("sliced_conv", {"channels": 3, "sources": ("a", "b")}, [IMAGE]),
    )


class TestConvBn(OpSuite):
    cases = tuple(
        ("conv_bn", {"channels": 6, "kernel": kernel, "relu": relu}, [IMAGE])
        for kernel in (1, 3)
        for relu in ("before", "after", "none")
    )


class TestNorm(OpSuite):
    cases = (("batch_norm", {}, [ODD]),)


class TestActivation(OpSuite):
    cases = (
        *((kind, {}, [IMAGE]) for kind in ACTIVATIONS),
        *((kind, {}, [(5,)]) for kind in ACTIVATIONS),
    )


class TestPool(OpSuite):
    cases = (
        ("max_pool", {}, [ODD]),
        ("max_pool", {"stride": 2}, [IMAGE]),
        ("avg_pool", {}, [ODD]),
        ("avg_pool", {"kernel": 5, "stride": 2}, [IMAGE]),
        ("max_pool", {"kernel": 2, "stride": 2, "padding": "valid"}, [ODD]),
        ("avg_pool", {"kernel": 5, "stride": 3, "padding": "valid"}, [ODD]),
        ("global_avg_pool", {}, [ODD]),
    )


class TestTraining(OpSuite):
    cases = (
        ("drop_path", {"rate": 0.3}, [IMAGE]),
        ("carried", {"name": "state", "size": (3,)}, [IMAGE]),
        ("auxiliary_head", {"classes": 3, "reduced": 4, "features": 6}, [(4, 8, 8)]),
        ("auxiliary_head", {"classes": 3, "reduced": 4, "features": 6}, [IMAGE]),
        ("auxiliary_head", {"classes": 3, "reduced": 4, "features": 6}, [(4, 3, 4)]),
    )


class TestCombine(OpSuite):
    cases = (
        ("sum", {}, [IMAGE, IMAGE]),
        ("concat", {}, [IMAGE, (2, 6, 6), (3, 6, 6)]),
    )


class TestMixedOp(OpSuite):
    cases = (
        ("gated_sum", {}, [IMAGE, IMAGE, IMAGE]),
        ("mixed_op", {"branches": (Candidate(SepConv(4), 0, "a"), Candidate(None, 1))}, [ODD, ODD]),
        (
            "mixed_op",
            {"branches": (Candidate(MaxPool()), Candidate(None)), "gated": True},
            [IMAGE],
        ),
    )


class TestPoolBn(OpSuite):
    cases = tuple(
        ("pool_bn", {"pool": pool, "stride": stride}, [ODD])
        for pool in ("max", "avg")
        for stride in (1, 2)
    )


class TestConcatConvBn(OpSuite):
    cases = (
        ("concat_conv_bn", {"channels": 3, "sources": ("a",)}, [IMAGE]),
        ("concat_conv_bn", {"channels": 3, "sources": ("a", "b")}, [IMAGE, IMAGE]),
    )


class TestDilation(OpSuite):
    cases = (
        ("conv", {"channels": 6, "kernel": 3, "dilation": 2}, [ODD]),
        ("sep_conv", {"channels": 6, "kernel": 5, "dilation": 2, "stages": 1}, [(4, 9, 9)]),
        ("sep_conv", {"channels": 6, "dilation": 2, "stride": 2}, [(4, 9, 9)]),
    )


class TestSepConv(OpSuite):
    cases = tuple(
        ("sep_conv", {"channels": 6, "kernel": kernel, "stride": stride, "stages": stages}, [ODD])
        for kernel in (3, 5)
        for stride in (1, 2)
        for stages in (1, 2)
    )


class TestFactorizedReduction(OpSuite):
    cases = (
        ("factorized_reduction", {"channels": 6}, [IMAGE]),
        ("factorized_reduction", {"channels": 6, "relu": True}, [ODD]),
        ("factorized_reduction", {"channels": 2}, [(4, 7, 6)]),
        ("shift", {}, [IMAGE]),
        ("shift", {}, [ODD]),
    )


class TestFactorizedConv(OpSuite):
    cases = (
        ("factorized_conv", {"channels": 6, "kernel": 3}, [ODD]),
        ("factorized_conv", {"channels": 6, "stride": 2}, [(4, 9, 9)]),
        ("factorized_conv", {"channels": 4, "stride": 2, "inner_norm": False}, [IMAGE]),
    )


class TestBottleneckConv(OpSuite):
    cases = (
        ("bottleneck_conv", {"channels": 8, "reduced": 2}, [ODD]),
        ("bottleneck_conv", {"channels": 8, "reduced": 0, "stride": 2}, [IMAGE]),
        ("bottleneck_conv", {"channels": 8, "reduced": 2, "dilation": 2}, [(4, 9, 9)]),
        (
            "bottleneck_conv",
            {"channels": 8, "reduced": 3, "kernel": 7, "stride": 2, "factorized": True},
            [(4, 9, 9)],
        ),
    )


class TestZero(OpSuite):
    cases = (("zero", {}, [ODD]), ("zero", {"stride": 2}, [IMAGE]), ("zero", {"stride": 2}, [ODD]))


class TestClassifier(OpSuite):
    cases = (
        ("classifier", {"classes": 3}, [IMAGE]),
        ("classifier", {"classes": 3, "relu": True, "dropout": 0.5}, [IMAGE]),
        ("linear", {"features": 3}, [(5,)]),
        ("dropout", {"rate": 0.5}, [IMAGE]),
        ("dropout", {"rate": 0.5, "channels": True}, [IMAGE]),
    )


class TestSqueezeExcite(OpSuite):
    cases = (
        ("squeeze_excite", {"reduced": 2}, [ODD]),
        ("squeeze_excite", {"reduced": 1, "activation": "swish", "gate": "hard_sigmoid"}, [IMAGE]),
    )


class TestInvertedBottleneck(OpSuite):
    cases = (
        ("inverted_bottleneck", {"channels": 4}, [IMAGE]),
        ("inverted_bottleneck", {"channels": 3, "kernel": 5, "expansion": 2}, [ODD]),
        ("inverted_bottleneck", {"channels": 6, "stride": 2, "expansion": 1}, [ODD]),
        (
            "inverted_bottleneck",
            {"channels": 6, "kernel": 7, "expansion": 2, "activation": "swish", "squeeze": 0.5},
            [ODD],
        ),
    )


class TestRnnCell(OpSuite):
    cases = (
        ("rnn_cell", {"hidden": 3, "previous": (), "activations": (0,)}, [(1, 2)]),
        (
            "rnn_cell",
            {"hidden": 5, "previous": (0, 1, 0), "activations": (0, 3, 2, 0)},
            [(3, 4)],
        ),
        (
            "rnn_cell",
            {"hidden": 4, "previous": (0, 0), "activations": (3, 1, 0), "carry_last": True},
            [(2, 4)],
        ),
        (
            "rnn_cell",
            {
                "hidden": 4,
                "previous": (0, 0),
                "activations": (3, 0, 1),
                "output": "later",
                "weights_per": "function",
                "with_state": True,
                "bound": 0.8,
            },
            [(3, 2)],
        ),
        (
            "rnn_cell",
            {"hidden": 4, "previous": (0, 1), "activations": (0, 1, 2), "clip": 0.4, "bound": 0.8},
            [(3, 4)],
        ),
        (
            "rnn_cell",
            {"hidden": 3, "previous": (0,), "activations": (0, 3), "onnx": "scan", "bound": 0.8},
            [(3, 4)],
        ),
    )

    def test_gradients_are_right(self) -> None:
        """A clipped state's factor is a constant to the gradient: finite differences see more."""
        kept = [case for case in self.cases if "clip" not in case[1]]
        type("Unclipped", (OpSuite,), {"cases": kept})().test_gradients_are_right()


class TestLstm(OpSuite):
    cases = (
        ("lstm", {"hidden": 3}, [(4, 2)]),
        ("lstm", {"hidden": 5, "with_state": True, "bound": 0.7}, [(3, 5)]),
    )

    def test_macs_agree_with_pytorchs_own_counter(self) -> None:
        """PyTorch counts nothing inside its LSTM: 4 H (E + H) a step, by hand."""
        assert [macs(graph_of(case)) for case in self.cases] == [4 * 12 * 5, 3 * 20 * 10]


class TestSteps(OpSuite):
    cases = (
        ("locked_dropout", {"rate": 0.5}, [(3, 4)]),
        ("step_norm", {}, [(3, 4)]),
        ("step_norm", {"epsilon": 1e-3}, [(1, 2)]),
    )


class TestLayout(OpSuite):
    cases = (
        ("reshape", {"size": (12, 12)}, [IMAGE]),
        ("permute", {"axes": (2, 0, 1)}, [ODD]),
        ("slice", {"axis": 1, "start": 1, "stop": 6, "step": 2}, [ODD]),
        ("expand", {"size": (3, 4)}, [(1, 4)]),
        ("expand", {"size": (2, 3, 1, 4)}, [(3, 1, 4)]),
        ("join", {"axis": 1}, [(3, 4)]),
        ("join", {"axis": 0}, [IMAGE, (2, 6, 6)]),
        ("zero_pad", {"before": (0, 1, 2), "behind": (0, 0, 3)}, [ODD]),
        ("mean", {"axes": (0,)}, [(3, 4)]),
        ("mean", {"axes": (1, 2), "keep": True}, [ODD]),
        ("softmax", {"axis": 1}, [(3, 4)]),
        ("scale", {"factor": 0.3}, [(3, 4)]),
        ("add_constant", {"value": -2.0}, [IMAGE]),
        ("multiply", {}, [IMAGE, IMAGE]),
    )


class TestSequences(OpSuite):
    cases = (
        ("linear", {"features": 3}, [(3, 4)]),
        ("layer_norm", {}, [(3, 4)]),
        ("layer_norm", {"axes": 2, "affine": False, "epsilon": 1e-3}, [ODD]),
        ("matmul", {}, [IMAGE, IMAGE]),
        ("attention", {}, [IMAGE, IMAGE, IMAGE]),
        ("attention", {"scale": 0.7, "dropout": 0.1}, [IMAGE, IMAGE, IMAGE]),
        ("parameter", {"size": (1, 5)}, [IMAGE]),
        ("parameter", {"size": (3,), "init": "ones"}, [(3, 4)]),
        ("constant", {"size": (2, 1), "values": (0.5, -1.0)}, [IMAGE]),
    )


class TestRanged(OpSuite):
    cases = (
        ("ranged_conv", {"channels": 5, "outputs": (1, 3), "kernel": 3}, [(4, 6, 5)]),
        ("ranged_conv", {"channels": 5, "outputs": (0, 5)}, [(4, 6, 5)]),
        (
            "ranged_conv",
            {"channels": 3, "outputs": (0, 3), "in_channels": 9, "inputs": ((1, 1), (4, 3))},
            [(4, 6, 5)],
        ),
        ("ranged_batch_norm", {"channels": 7, "first": 2}, [(4, 6, 5)]),
    )


class TestPadTo(OpSuite):
    cases = (
        ("pad_to", {"size": (7, 6)}, [(2, 4, 5)]),
        ("pad_to", {"size": (4, 9)}, [(2, 4, 5)]),
        ("pad_to", {"size": (4, 5)}, [(2, 4, 5)]),
    )


class TestTreeCell(OpSuite):
    cases = (
        ("tree_cell", {"hidden": 3, **TREE}, [(4, 5)]),
        ("tree_cell", {"hidden": 2, **NAS_CELL}, [(3, 3)]),
        ("tree_cell", {"hidden": 3, **TREE, "cell_at": 2, "inject_at": 2}, [(2, 3)]),
    )


@pytest.mark.parametrize("shape", [(4,), (4, 1, 1)])
def test_an_image_is_multiplied_by_a_factor_for_each_channel(shape):
    op = OPS.get("multiply")()
    assert op.shape([IMAGE, shape]) == IMAGE
    x, factor = torch.randn(2, *IMAGE), torch.randn(2, *shape)
    got = op.forward([x, factor], {}, EVAL)
    for image in range(2):
        for channel in range(4):
            expected = x[image, channel] * factor[image, channel]
            assert torch.equal(got[image, channel], expected)


@pytest.mark.parametrize(
    "shapes", [[IMAGE], [IMAGE, (5,)], [IMAGE, (5, 1, 1)], [(4,), IMAGE], [(4,), (4, 1, 1)]]
)
def test_multiply_refuses_shapes_that_do_not_fit(shapes):
    with pytest.raises(ShapeError, match="multiply expects"):
        OPS.get("multiply")().shape(shapes)


def test_the_squeeze_of_a_bottleneck_is_a_share_of_its_input_not_of_the_expansion():
    g = GraphBuilder((8, 4, 4))
    block = g.inverted_bottleneck(g.input, channels=8, expansion=3, squeeze=0.25, weights="block")
    specs = g.finish(block).weight_specs()
    assert specs["block/squeeze/reduce/weight"].shape == (2, 24)
    assert specs["block/depthwise/conv/weight"].shape == (24, 1, 3, 3)


def test_a_bottleneck_without_expansion_has_no_expanding_convolution():
    g = GraphBuilder((8, 4, 4))
    block = g.inverted_bottleneck(g.input, channels=6, expansion=1, weights="block")
    specs = g.finish(block).weight_specs()
    assert not any("expand" in name for name in specs)
    assert specs["block/depthwise/conv/weight"].shape == (8, 1, 3, 3)


def test_every_op_of_the_toolkit_is_tested_here() -> None:
    tested = {case[0] for suite in OpSuite.__subclasses__() for case in suite.cases}
    # An embedding takes tokens, not vectors: tests/graph/test_tree_cell.py.
    assert set(OPS.names()) - {"input", "embedding"} <= tested
