"""Networks that went through ONNX compute what they did; what cannot be read is named."""

import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hwnas.errors import UserInputError
from hwnas.export.onnx import to_onnx
from hwnas.graph import EVAL, GraphBuilder
from hwnas.graph.from_onnx import from_onnx
from hwnas.spaces import SPACES
from hwnas.spaces.transform import Transform
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore
from hwnas.testing.spaces import example_input


def trained(graph):
    store, generator = WeightStore(0), torch.Generator().manual_seed(0)
    store.load(
        {
            name: store.get(name, spec).detach() + 0.3 * torch.rand(spec.shape, generator=generator)
            for name, spec in graph.weight_specs().items()
        }
    )
    return store


def exported(graph, store):
    return to_onnx(graph, {name: value.numpy() for name, value in store.state().items()})


def imported_output(found, x):
    store = WeightStore(1)
    store.load({name: torch.tensor(value) for name, value in found.weights.items()})
    assert set(store) == set(found.graph.weight_specs())
    return run(found.graph, store, x)


def everything():
    """All that `from_onnx` reads and hwnas writes, in one network."""
    g = GraphBuilder((3, 9, 8))
    x = g.conv(g.input, channels=8, kernel=3, bias=True, padding="valid", weights="stem")
    x = g.relu6(g.conv(x, channels=8, kernel=3, groups=8, dilation=2, weights="dw"))
    x = g.squeeze_excite(g.hard_swish(x), reduced=2, gate="hard_sigmoid", weights="se")
    y = g.conv_bn(x, channels=4, kernel=(1, 3), relu="after", weights="left")
    z = g.swish(g.avg_pool(g.conv(x, channels=4, weights="right"), kernel=3))
    x = g.concat(y, g.max_pool(z, kernel=3), g.sum(g.tanh(y), g.gelu(z)))
    x = g.elu(g.leaky_relu(g.multiply(x, g.sigmoid(x)), slope=0.2), alpha=0.7)
    x = g.dropout(g.max_pool(x, kernel=2, stride=2, padding="valid"), rate=0.5)
    x = g.reshape(x, size=(12 * 3 * 3,))
    return g.finish(g.linear(g.relu(g.linear(x, features=6, weights="a")), features=4, weights="b"))


def test_all_supported_ops_survive():
    graph = everything()
    store, x = trained(graph), example_input(graph, 3)
    found = from_onnx(exported(graph, store))
    wanted = run(graph, store, x, EVAL)
    assert (imported_output(found, x) - wanted).abs().max() < 1e-5 * wanted.abs().max().clamp_min(1)
    assert "left/conv/weight" in found.weights  # names are those of the file


@pytest.mark.parametrize("name", ["conv_chain", "nasbench201", "mobile", "transform"])
def test_networks_of_spaces_survive(name):
    kind = SPACES.get(name)
    space = kind(kind.Config(), (3, 32, 32), 10)
    graph = space.graph(space.sample(random.Random(1)))
    store, x = trained(graph), example_input(graph, 2)
    wanted = run(graph, store, x, EVAL)
    found = imported_output(from_onnx(exported(graph, store)), x)
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max().clamp_min(1)


def by_hand(nodes, weights, output=(1, 3), opset=17):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node(kind, read, [made], **attributes)
            for kind, read, made, attributes in nodes
        ],
        "by-hand",
        [info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def test_what_other_tools_write_is_read_too():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    weights = {
        "conv.weight": draw(4, 2, 3, 3),
        "conv.bias": draw(4),
        "se.weight": draw(4, 4, 1, 1),
        "onnx::MatMul_7": draw(4, 3),
        "fc.bias": draw(3),
        "shape": np.array([0, -1]),
    }
    pads = {"kernel_shape": [3, 3], "pads": [1] * 4}
    model = by_hand(
        [
            ("Conv", ["x", "conv.weight", "conv.bias"], "a", pads),
            ("Identity", ["a"], "b", {}),
            ("GlobalAveragePool", ["b"], "p", {}),
            ("Conv", ["p", "se.weight"], "q", {"kernel_shape": [1, 1]}),
            ("Sigmoid", ["q"], "r", {}),
            ("Mul", ["r", "b"], "s", {}),
            ("Sum", ["s", "a", "b"], "t", {}),
            ("ReduceMean", ["t"], "u", {"axes": [2, 3], "keepdims": 1}),
            ("Reshape", ["u", "shape"], "v", {}),
            ("MatMul", ["v", "onnx::MatMul_7"], "w", {}),
            ("Add", ["fc.bias", "w"], "y", {}),
        ],
        weights,
    )
    agrees_with_onnxruntime(model, draw(1, 2, 4, 4))


WINDOW = {"kernel_shape": [3, 3]}
COUNTED = WINDOW | {"count_include_pad": 1}
PADDINGS = {
    "conv_uneven": ("Conv", WINDOW | {"pads": [0, 2, 1, 1]}),
    "conv_same": ("Conv", WINDOW | {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "conv_same_lower": ("Conv", WINDOW | {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "max_ceil": ("MaxPool", {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1}),
    "max_ceil_outside": ("MaxPool", WINDOW | {"pads": [1] * 4, "strides": [4, 4], "ceil_mode": 1}),
    "max_same": ("MaxPool", WINDOW | {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "avg_counted": ("AveragePool", COUNTED | {"pads": [1] * 4}),
    "avg_counted_uneven": ("AveragePool", COUNTED | {"pads": [0, 0, 1, 1], "strides": [2, 2]}),
}


@pytest.mark.parametrize(("kind", "attributes"), PADDINGS.values(), ids=PADDINGS)
def test_paddings_of_other_tools_are_read(kind, attributes):
    rng = np.random.default_rng(0)
    weight = {"w": rng.normal(size=(2, 2, 3, 3)).astype(np.float32)} if kind == "Conv" else {}
    model = by_hand(
        [("Relu", ["x"], "a", {}), (kind, ["a", *weight], "y", attributes)],
        weight,
        [1, 2, "h", "w"],
    )
    agrees_with_onnxruntime(model, rng.normal(size=(1, 2, 4, 4)).astype(np.float32))


def test_networks_of_caffe_and_tensorflow_are_read():
    """Scales behind batch norms, constants made by operators, padding, NHWC before the vector."""
    rng = np.random.default_rng(0)
    numbers = {name: rng.random(2).astype(np.float32) for name in ("a", "b", "m", "v", "s", "t")}
    numbers |= {"w": rng.normal(size=(3, 2, 1, 1)).astype(np.float32), "size": np.array([3])}
    numbers |= {"pads": np.array([0, 0, 1, 0, 0, 0, 1, 0]), "rows": np.array([1, -1])}
    fill = numpy_helper.from_array(np.array([0.5], np.float32))
    model = by_hand(
        [
            ("BatchNormalization", ["x", "a", "b", "m", "v"], "n", {}),
            ("Unsqueeze", ["s", "axes"], "s3", {}),
            ("Unsqueeze", ["t", "axes"], "t3", {}),
            ("Mul", ["n", "s3"], "ns", {}),
            ("Add", ["t3", "ns"], "nst", {}),
            ("Pad", ["nst", "pads"], "padded", {}),
            ("ConstantOfShape", ["size"], "bias", {"value": fill}),
            ("Conv", ["padded", "w", "bias"], "c", {}),
            ("AveragePool", ["c"], "p", {"kernel_shape": [6, 4]}),
            ("Transpose", ["p"], "q", {"perm": [0, 2, 3, 1]}),
            ("Reshape", ["q", "rows"], "r", {}),
            ("Softmax", ["r"], "y", {}),
        ],
        numbers | {"axes": np.array([1, 2])},
    )
    x = rng.normal(size=(1, 2, 4, 4)).astype(np.float32)
    agrees_with_onnxruntime(model, x, lambda logits: logits.softmax(1))
    assert from_onnx(model).graph.nodes[-1].op.kind == "global_avg_pool"


def agrees_with_onnxruntime(model, x, then=lambda found: found):
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (wanted,) = session.run(None, {"x": x})
    found = then(imported_output(from_onnx(model), torch.from_numpy(x)))
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-5, atol=1e-5)


ONNX_FILES = Path(__file__).parents[3] / "shared" / "data" / "onnx"


@pytest.mark.skipif(not ONNX_FILES.is_dir(), reason="no ../shared/data/onnx")
def test_a_network_of_another_tool_keeps_its_answers():
    path = ONNX_FILES / "github-tiny_results_v1.2__pretrainedResnet.onnx"
    found = from_onnx(path)
    x = torch.randn(1, *found.graph.input_shape, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(path)
    (wanted,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    answer = imported_output(found, x).softmax(1)
    np.testing.assert_allclose(answer.detach().numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_all_unsupported_operators_are_named_at_once():
    nodes = [("Erf", ["x"], "a", {}), ("Erf", ["a"], "b", {}), ("LRN", ["b"], "y", {"size": 3})]
    with pytest.raises(UserInputError, match=r"Erf \(2\), LRN \(1\)"):
        from_onnx(by_hand(nodes, {}, [1, 2, 4, 4]))


WEIGHT = np.ones((2, 2, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("nodes", "weights", "message"),
    [
        ([("MaxPool", ["x"], "y", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]})], {}, "negative"),
        ([("AveragePool", ["x"], "y", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})],
         {}, "not counted"),
        ([("Pad", ["x", "pads"], "y", {"mode": "reflect"})], {"pads": np.array([0, 0, 1, 1] * 2)},
         "other things than zeros"),
        ([("Softmax", ["x"], "y", {})], {}, "end of a classifier"),
        ([("Transpose", ["x"], "y", {"perm": [1, 0, 2, 3]})], {}, "moves the batch"),
        ([("Clip", ["x", "low"], "y", {})], {"low": np.float32(-1)}, "clips to"),
        ([("Add", ["x", "one"], "y", {})], {"one": np.float32(1)}, "adds the constant"),
        ([("Mul", ["x", "one"], "y", {})], {"one": np.float32(1)}, "no factor of channels"),
        ([("Concat", ["x", "x"], "y", {"axis": 2})], {}, "join the channels"),
        ([("AveragePool", ["x"], "y", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4,
          "count_include_pad": 1, "ceil_mode": 1})], {}, "counts the padding"),
        ([("ReduceMean", ["x"], "y", {"axes": [1]})], {}, "height and width"),
        ([("Add", ["x", "z"], "y", {})], {}, "does not exist"),
    ],
)  # fmt: skip
def test_what_would_be_read_wrongly_is_refused(nodes, weights, message):
    with pytest.raises(UserInputError, match=message):
        from_onnx(by_hand(nodes, weights, [1, 2, 4, 4]))


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"\xff\xff nothing")
    with pytest.raises(UserInputError, match="cannot be read"):
        from_onnx(tmp_path / "no.onnx")
    with pytest.raises(UserInputError, match="cannot be read"):
        from_onnx(tmp_path / "missing.onnx")


def test_a_file_is_the_base_of_transformations(tmp_path):
    graph = everything()
    onnx.save(exported(graph, trained(graph)), tmp_path / "base.onnx")
    config = Transform.Config(base={"onnx": str(tmp_path / "base.onnx")}, steps=2)
    space = Transform(config, (3, 9, 8), 4)
    assert set(space.base_weights) == set(space.base.graph.weight_specs())
    assert {"left/conv", "right"} <= set(space.base.insertable())
    for seed in range(10):
        assert space.graph(space.sample(random.Random(seed))).weight_specs()
    with pytest.raises(UserInputError, match="the data is"):
        _ = Transform(config, (3, 9, 8), 5).base
