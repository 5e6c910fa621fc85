from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas.errors import UserInputError
from hwnas.export.onnx import to_onnx
from hwnas.latency.device import Device
from hwnas.latency.kernels import Kernel, fused_kernels, kernels_of
from hwnas.spaces import SearchSpace
from tests.latency.conftest import graphs


def optimised_kernels(space, device, seed):
    model = device.runtime.optimise(to_onnx(graphs(space, 1, seed)[0]))
    types = device.runtime.tensor_types(model)
    return model, types, [kernel for _, kernel in kernels_of(model, types)]


def test_every_node_of_the_optimised_model_is_a_kernel(device: Device, conv_chain: SearchSpace):
    model, _, kernels = optimised_kernels(conv_chain, device, seed=3)
    assert [each.op_type for each in kernels] == [node.op_type for node in model.graph.node]
    assert len(kernels) < len(to_onnx(graphs(conv_chain, 1, seed=3)[0]).graph.node), "nothing fused"


def test_a_signature_can_be_read_back(device: Device, enas_micro: SearchSpace):
    for kernel in optimised_kernels(enas_micro, device, seed=0)[2]:
        assert Kernel.parse(kernel.signature) == kernel


def test_every_kernel_runs_as_a_model_of_its_own(device: Device, enas_micro: SearchSpace):
    for kernel in set(optimised_kernels(enas_micro, device, seed=0)[2]):
        model = Kernel.parse(kernel.signature).to_model()
        types = device.runtime.tensor_types(model)
        assert [types[f"out{i}"] for i in range(len(kernel.outputs))] == list(kernel.outputs)
        device.runtime.prepare(model, optimise=False)()


def test_weights_count_and_activations_do_not(device: Device):
    text = "::Conv-11{'group': 1}(f32[1,4,8,8], w:f32[8,4,3,3], w:f32[8]) -> (f32[1,8,6,6])"
    assert Kernel.parse(text).weight_bytes == 4 * (8 * 4 * 3 * 3 + 8)


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("::Conv-11{'group': 8}(f32[1,8,8,8], w:f32[8,1,3,3]) -> (f32[1,8,6,6])", "conv_depthwise"),
        ("::Conv-11{}(f32[1,8,8,8], w:f32[8,8,1,1]) -> (f32[1,8,8,8])", "conv_pointwise"),
        ("::Conv-11{}(f32[1,8,8,8], w:f32[8,8,3,3]) -> (f32[1,8,6,6])", "conv_direct"),
        ("x::ReorderInput-1{}(f32[1,8,8,8]) -> (f32[1,8,8,8])", "reorder"),
        ("::MaxPool-12{}(f32[1,8,8,8]) -> (f32[1,8,8,8])", "pool"),
        ("::Relu-14{}(f32[1,8,8,8]) -> (f32[1,8,8,8])", "other"),
    ],
)
def test_families_follow_how_a_kernel_is_computed(text, family):
    assert Kernel.parse(text).family == family


@pytest.mark.parametrize("text", ["", "Relu", "::Relu-14{}(f32[1) -> (f32[1])", "::R-1{x}() -> ()"])
def test_text_that_is_no_signature_is_refused(text):
    with pytest.raises(UserInputError, match="not a kernel signature"):
        Kernel.parse(text)


def test_a_kernel_with_a_subgraph_is_listed_and_so_is_what_it_runs(device: Device):
    """Nothing is dropped: it is a kernel like all others, beside those of the branch taken."""

    def branch(name, scale):
        value = numpy_helper.from_array(np.full((1, 2), scale, np.float32), f"{name}/c")
        return helper.make_graph(
            [helper.make_node("Add", ["x", f"{name}/c"], [name])],
            name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2])], [value],
        )  # fmt: skip

    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
            helper.make_node("Cast", ["s"], ["b"], to=TensorProto.BOOL),
            helper.make_node(
                "If", ["b"], ["y"], then_branch=branch("t", 1.0), else_branch=branch("e", 2.0)
            ),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    )
    opset = [helper.make_opsetid("", 20)]
    kernels = fused_kernels(
        helper.make_model(graph, opset_imports=opset, ir_version=9), device.runtime
    )
    conditional = next(each for each in kernels if each.op_type == "If")
    assert sum(each.op_type == "Add" for each in kernels) == 1
    device.runtime.prepare(conditional.to_model(), optimise=False)()


def test_an_unknown_batch_size_is_taken_as_one(device: Device, conv_chain: SearchSpace):
    graph = graphs(conv_chain, 1, seed=3)[0]
    fixed = fused_kernels(to_onnx(graph, batch=1), device.runtime)
    open_batch = fused_kernels(to_onnx(graph, batch=0), device.runtime)
    assert [k.signature for k in open_batch] == [k.signature for k in fixed]
