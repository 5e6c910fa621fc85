import numpy as np
import pytest
import torch
from onnx import numpy_helper, shape_inference

from hwnas import kernels
from hwnas.errors import ShapeError, UserInputError
from hwnas.export.onnx import to_onnx
from hwnas.graph import EVAL, TRAIN, GraphBuilder
from hwnas.graph.counts import activation_bytes, macs, params, weight_bytes
from hwnas.spaces import SPACES
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore


def micro_graph():
    import random

    plugin = SPACES.get("enas_micro")
    space = plugin(plugin.Config(layers=3, channels=8), (3, 16, 16), 10)
    return space.graph(space.sample(random.Random(7)))


def onnx_counts(model):
    """Count MACs, weights and activation bytes from the file alone, with ONNX's own shapes."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True)
    shapes = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]
    }
    weights = {w.name: numpy_helper.to_array(w) for w in inferred.graph.initializer}
    mac_count = 0
    for node in inferred.graph.node:
        if node.op_type == "Conv":
            mac_count += int(
                np.prod(shapes[node.output[0]]) * np.prod(weights[node.input[1]].shape[1:])
            )
        elif node.op_type == "Gemm":
            mac_count += weights[node.input[1]].size
    running = {
        name
        for n in inferred.graph.node
        if n.op_type == "BatchNormalization"
        for name in n.input[3:]
    }
    trainable = sum(
        w.size for k, w in weights.items() if w.dtype == np.float32 and k not in running
    )
    return mac_count, trainable


def test_counts_agree_with_an_independent_count_of_the_onnx_file():
    graph = micro_graph()
    assert onnx_counts(to_onnx(graph)) == (macs(graph), params(graph))


def test_counts_agree_with_hooks_on_the_pytorch_calls():
    graph, store = micro_graph(), WeightStore(0)
    seen = []
    from torch.utils.flop_counter import FlopCounterMode

    with kernels.use("reference"), FlopCounterMode(display=False) as counter:
        run(graph, store, torch.randn(1, 3, 16, 16), EVAL)
    seen.append(counter.get_total_flops())
    assert seen == [2 * macs(graph)]
    assert params(graph) == sum(v.numel() for v in store.state().values() if v.numel()) - sum(
        v.numel() for k, v in store.state().items() if k.endswith(("/mean", "/variance"))
    )
    assert weight_bytes(graph) == 4 * sum(v.numel() for v in store.state().values())


def test_activation_bytes_are_those_of_the_tensors():
    g = GraphBuilder((3, 8, 8))
    x = g.conv(g.input, channels=4, kernel=3, weights="a")
    graph = g.finish(g.classifier(x, classes=10, weights="head"))
    assert activation_bytes(graph) == 4 * (3 * 64 + 4 * 64 + 4 + 10)


def test_ops_that_nothing_reads_are_left_out():
    g = GraphBuilder((3, 8, 8))
    g.conv(g.input, channels=4, weights="unread")
    graph = g.finish(g.classifier(g.input, classes=2, weights="head"))
    assert list(graph.weight_specs()) == ["head/linear/weight", "head/linear/bias"]


def test_a_weight_name_with_two_shapes_is_refused():
    g = GraphBuilder((3, 8, 8))
    x = g.conv(g.input, channels=4, weights="same")
    x = g.conv(x, channels=4, weights="same")
    with pytest.raises(ShapeError, match="'same/weight' is used with shapes"):
        g.finish(g.classifier(x, classes=2, weights="head"))


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda g: g.conv(g.input, channels=4), ShapeError, "name them with weights"),
        (lambda g: g.sep_cnv(g.input), AttributeError, "Did you mean 'sep_conv'"),
        (
            lambda g: g.conv(g.input, chanels=4, weights="a"),
            UserInputError,
            r"unknown attributes \['chanels'\]",
        ),
        (lambda g: g.sum(g.input), ShapeError, "two inputs of one shape"),
        (lambda g: g.conv(g.input, channels=4, groups=2, weights="a"), ShapeError, "2 groups"),
        (lambda g: g.linear(g.input, features=4, weights="a"), ShapeError, "shape \\(F,\\)"),
        (lambda g: g.factorized_reduction(g.input, channels=3, weights="a"), ShapeError, "halved"),
    ],
)
def test_a_mistake_in_a_space_names_the_op_and_what_it_got(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake(GraphBuilder((3, 8, 8)))


def test_batch_norm_keeps_running_statistics_only_when_told():
    g = GraphBuilder((2, 4, 4))
    graph = g.finish(g.batch_norm(g.input, weights="bn"))
    store = WeightStore(0)
    x = torch.randn(8, 2, 4, 4) + 3
    run(graph, store, x, TRAIN)
    expected = 0.1 * x.mean(dim=(0, 2, 3))
    torch.testing.assert_close(store["bn/mean"], expected)
    before = store["bn/mean"].clone()
    run(graph, store, x, EVAL)
    torch.testing.assert_close(store["bn/mean"], before)
