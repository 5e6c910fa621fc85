"""Writes a graph as an ONNX model, directly from its ops."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.errors import HwnasError
from hwnas.graph import Graph, Node, Primitive, Shape, WeightSpec
from hwnas.graph.ops.input import Input

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Array = np.ndarray[Any, Any]

#: What every file is written with: the newest that ONNX Runtime 1.17 and later read.
OPSET = 20
IR_VERSION = 9


def to_onnx(
    graph: Graph,
    weights: Mapping[str, Array] | None = None,
    *,
    batch: int = 1,
    name: str = "hwnas",
) -> ModelProto:
    """Write a graph in its inference form, float32.

    Nodes and their outputs are named after the expanded graph: the last ONNX node of node `i` is
    ``n{i}``, those before it ``n{i}.0``, ``n{i}.1``, …, so that whatever a runtime makes of them
    can be traced back.

    Args:
        graph: The network; outputs that only training needs are left out.
        weights: Values by weight name; None draws them from their initialisation, reproducibly,
            for models whose speed matters but not their answers.
        batch: Images in a batch; 0 leaves it open.
        name: Name of the ONNX graph.

    Returns:
        A model with the input ``input``, `[N, C, H, W]` images or `[N, T]` tokens, and the output
        ``logits``.

    Raises:
        HwnasError: A weight is missing or has another shape.
    """
    from onnx import TensorProto, helper

    graph = graph.inference()
    expanded = graph.expanded()
    input_type = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}[_input_dtype(graph)]
    writer = _Writer(weights)
    outputs: list[str] = ["input"]
    for index, node in enumerate(expanded.nodes):
        if index:
            inputs = [outputs[i] for i in node.inputs]
            outputs.append(writer.write(index, node, expanded.input_shapes(node), inputs))

    result = expanded.outputs[0]
    writer.name_result(outputs[result], "logits")
    size: int | str = batch or "batch"
    tensor_info = helper.make_tensor_value_info
    return helper.make_model(
        helper.make_graph(
            writer.nodes,
            name,
            [tensor_info("input", input_type, [size, *graph.input_shape])],
            [tensor_info("logits", TensorProto.FLOAT, [size, *expanded.nodes[result].shape])],
            writer.initializers,
        ),
        producer_name="hwnas",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )


def initial_value(name: str, spec: WeightSpec) -> Array:
    """Draw a weight from its initialisation, as a function of its name alone."""
    if spec.init == "zeros":
        return np.zeros(spec.shape, np.float32)
    if spec.init == "ones":
        return np.ones(spec.shape, np.float32)
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if spec.init == "uniform":
        return generator.uniform(-spec.bound, spec.bound, spec.shape).astype(np.float32)
    return generator.normal(0.0, spec.std, spec.shape).astype(np.float32)


def _input_dtype(graph: Graph) -> str:
    op = graph.nodes[0].op
    assert isinstance(op, Input)
    return op.dtype


class _Writer:
    """Collects ONNX nodes and initializers; the ops see it as `OnnxNodeWriter`."""

    def __init__(self, weights: Mapping[str, Array] | None) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._given = weights
        self._written: set[str] = set()
        self._index = 0
        self._node: Node | None = None
        self._specs: Mapping[str, WeightSpec] = {}
        self._shapes: Sequence[Shape] = ()

    @property
    def input_shapes(self) -> Sequence[Shape]:
        return self._shapes

    def write(self, index: int, node: Node, shapes: Sequence[Shape], inputs: list[str]) -> str:
        assert isinstance(node.op, Primitive)
        self._index, self._node, self._shapes = index, node, shapes
        self._specs = node.op.weights(shapes)
        first = len(self.nodes)
        output = node.op.to_onnx(self, inputs)
        own = self.nodes[first:]
        for position, each in enumerate(own):
            is_last = position == len(own) - 1
            new = f"n{index}" if is_last else f"n{index}.{position}"
            others = (f"{new}:{i}" for i in range(1, len(each.output)))
            names = dict(zip(each.output, [new, *others], strict=True))
            for later in own[position + 1 :]:
                later.input[:] = [names.get(i, i) for i in later.input]
            output = names.get(output, output)
            each.name = new
            each.output[:] = names.values()
        return output

    def name_result(self, output: str, name: str) -> None:
        """Rename a node's output; the input itself, handed through, needs a node to do so."""
        if output == "input":
            output = self.emit("Identity", ["input"])
        for node in self.nodes:
            node.output[:] = [name if each == output else each for each in node.output]
            node.input[:] = [name if each == output else each for each in node.input]

    def emit(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        return self.emit_many(op_type, inputs, 1, **attributes)[0]

    def emit_many(
        self, op_type: str, inputs: Sequence[str], count: int, **attributes: Any
    ) -> list[str]:
        from onnx import helper

        outputs = [f"new{len(self.nodes)}/{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op_type, list(inputs), outputs, **attributes))
        return outputs

    def weight(self, local: str) -> str:
        assert self._node is not None
        name = f"{self._node.weights}/{local}"
        if name not in self._written:
            self._add_initializer(name, self.array(local))
        return name

    def array(self, local: str) -> Array:
        assert self._node is not None
        name = f"{self._node.weights}/{local}"
        spec = self._specs[local]
        if self._given is None:
            return initial_value(name, spec)
        if name not in self._given:
            raise HwnasError(f"export: weight {name!r} is missing")
        value = np.asarray(self._given[name], np.float32)
        if value.shape != spec.shape:
            raise HwnasError(
                f"export: weight {name!r} has shape {value.shape}, the network needs {spec.shape}"
            )
        return value

    def constant(self, name: str, value: Array) -> str:
        full = f"n{self._index}/{name}"
        self._add_initializer(full, value)
        return full

    def _add_initializer(self, name: str, value: Array) -> None:
        from onnx import numpy_helper

        self._written.add(name)
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
