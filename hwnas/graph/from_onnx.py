"""Reads a convolutional network from an ONNX file."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwnas.errors import ShapeError, UserInputError
from hwnas.graph._onnx_layout import LayoutReader
from hwnas.graph._onnx_nodes import (
    Array,
    attributes_of,
    constant_of,
    number_of,
    pads_of,
    refusal,
    window_size,
)
from hwnas.graph.builder import GraphBuilder, Value
from hwnas.graph.graph import Graph
from hwnas.graph.op import Padding, Size, window_padding
from hwnas.graph.ops.norm import BatchNorm

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_SAME_NAME = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "HardSwish": "hard_swish",
    "Gelu": "gelu",
    "MaxPool": "max_pool",
    "AveragePool": "avg_pool",
}
_KEPT = frozenset({"Identity", "Dropout"})
_RECTIFIED = frozenset({"relu", "relu6", "sigmoid", "hard_sigmoid"})
_STILL_RECTIFIED = frozenset({"max_pool", "avg_pool", "concat", "dropout", "zero_pad"})


@dataclass(frozen=True)
class Imported:
    """A network that was read from a file.

    Attributes:
        graph: The network in primitives.
        weights: Its weights by name, float32.
    """

    graph: Graph
    weights: Mapping[str, Array]


def from_onnx(source: str | Path | ModelProto) -> Imported:
    """Read a network with one image input and one output, in its inference form.

    Layers are named after their weights in the file, as far as these have names.

    Supported: Conv, BatchNormalization (a Mul and an Add for each channel behind it become part of
    it), Relu, Clip from 0 to 6, Sigmoid, Tanh, HardSigmoid (α = 1/6), HardSwish, Gelu, LeakyRelu,
    Elu, Add and Sum, Mul, Concat of channels, MaxPool, AveragePool, GlobalAveragePool, ReduceMean
    over the image, Pad with zeros, Transpose, Flatten, Reshape and Squeeze to vectors, Unsqueeze of
    pooled vectors, Gemm, MatMul (+ Add), Identity, Dropout, Constant, ConstantOfShape. A Softmax at
    the end is left out: networks of hwnas return logits.

    Raises:
        UserInputError: The file cannot be read; it has unsupported operators, all of which are
            named at once; or an operator is used in an unsupported way.
    """
    reader = _Reader(_model(source))
    return reader.read()


def _model(source: str | Path | ModelProto) -> ModelProto:
    import onnx

    if not isinstance(source, str | Path):
        return source
    try:
        return onnx.load(str(source))
    except Exception as error:  # protobuf raises errors of its own
        raise UserInputError(
            f"{source} cannot be read as ONNX: {error}", "give the path of an .onnx file"
        ) from error


class _Reader(LayoutReader):
    def __init__(self, model: ModelProto) -> None:
        from onnx import numpy_helper

        self.file = model.graph
        self.constants: dict[str, Array] = {
            each.name: numpy_helper.to_array(each) for each in self.file.initializer
        }
        self.g = GraphBuilder(self._input_shape())
        self.values: dict[str, Value] = {self._input_name(): self.g.input}
        self.products: dict[str, NodeProto] = {}
        self.sigmoids: dict[str, str] = {}
        self.weights: dict[str, Array] = {}
        self.named: dict[str, tuple[str, ...]] = {}
        self.readers = Counter(name for node in self.file.node for name in node.input)

    def read(self) -> Imported:
        """Add all nodes and return the network."""
        self._refuse_unsupported()
        for node in self.file.node:
            self._read_node(node)
        if len(self.file.output) != 1:
            raise UserInputError(f"ONNX: the network has {len(self.file.output)} outputs, not one")
        output = self._value(self.file.output[0].name)
        graph = self.g.finish(output).expanded()
        names = graph.weight_specs()
        return Imported(graph, {name: self.weights[name] for name in names})

    def _input_name(self) -> str:
        inputs = [each.name for each in self.file.input if each.name not in self.constants]
        if len(inputs) != 1:
            raise UserInputError(f"ONNX: the network has {len(inputs)} inputs, not one")
        return str(inputs[0])

    def _input_shape(self) -> tuple[int, ...]:
        name = self._input_name()
        (entry,) = [each for each in self.file.input if each.name == name]
        sizes = tuple(each.dim_value for each in entry.type.tensor_type.shape.dim)
        if len(sizes) != 4 or min(sizes[1:]) < 1:
            raise UserInputError(
                f"ONNX: the input {name!r} has the shape {list(sizes)}",
                "it must be [batch, channels, height, width], all but the batch fixed",
            )
        return sizes[1:]

    def _refuse_unsupported(self) -> None:
        known = {*_SAME_NAME, *_KEPT, *self._handlers(), "Constant", "ConstantOfShape"}
        found = Counter(each.op_type for each in self.file.node if each.op_type not in known)
        if found:
            names = ", ".join(f"{name} ({count})" for name, count in sorted(found.items()))
            raise UserInputError(
                f"ONNX: operators that are not supported: {names}",
                f"supported are {', '.join(sorted(known))}",
            )

    def _handlers(self) -> dict[str, Callable[[NodeProto], Value]]:
        return {
            "Conv": self._conv,
            "BatchNormalization": self._batch_norm,
            "Clip": self._clip,
            "HardSigmoid": self._hard_sigmoid,
            "LeakyRelu": self._with_alpha,
            "Elu": self._with_alpha,
            "Add": self._add,
            "Sum": self._add,
            "Mul": self._mul,
            "Concat": self._concat,
            "Gemm": self._gemm,
            "MatMul": self._matmul,
            "GlobalAveragePool": self._mean,
            "ReduceMean": self._mean,
            "Flatten": self._flatten,
            "Reshape": self._flatten,
            "Squeeze": self._flatten,
            "Unsqueeze": self._unsqueeze,
            "Transpose": self._transpose,
            "Pad": self._pad,
            "Softmax": self._softmax,
        }

    def _read_node(self, node: NodeProto) -> None:
        constant = constant_of(node, self.constants)
        if constant is not None:
            self.constants[node.output[0]] = constant
            return
        try:
            self.values[node.output[0]] = self._result(node)
        except ShapeError as error:
            raise refusal(node, error.message) from error

    def _result(self, node: NodeProto) -> Value:
        if node.op_type in _KEPT:
            return self._value(node.input[0])
        if node.op_type in ("MaxPool", "AveragePool"):
            return self._pool(node)
        if node.op_type in _SAME_NAME:
            if attributes_of(node).get("approximate", b"none") != b"none":
                raise refusal(node, "an approximate Gelu")
            if node.op_type == "Sigmoid":
                self.sigmoids[node.output[0]] = node.input[0]
            return self._add_op(_SAME_NAME[node.op_type], self._value(node.input[0]))
        return self._handlers()[node.op_type](node)

    def _conv(self, node: NodeProto) -> Value:
        x, weight = self._value(node.input[0]), self._weight(node, 1)
        bias = self._weight(node, 2) if len(node.input) > 2 and node.input[2] else None
        found = attributes_of(node)
        groups, dilations = found.get("group", 1), set(found.get("dilations", [1]))
        if len(x.shape) == 1:  # behind a global pooling
            if math.prod(weight.shape[2:]) != 1 or groups != 1:
                raise refusal(node, "a pooled vector is convolved with more than one tap")
            return self._linear(node, x, weight.reshape(weight.shape[:2]), bias)
        if weight.ndim != 4 or len(dilations) != 1:
            raise refusal(node, "it is not two-dimensional, or its dilations differ")
        (dilation,) = dilations
        kernel, stride = window_size(weight.shape[2:]), window_size(found.get("strides", [1, 1]))
        values = {"weight": weight} | ({} if bias is None else {"bias": bias})
        pads = pads_of(found, x.shape[1:], kernel, stride, dilation)
        x, padding = self._padded(x, pads, kernel, dilation)
        return self._add_op(
            "conv",
            x,
            channels=weight.shape[0],
            kernel=kernel,
            stride=stride,
            groups=groups,
            dilation=dilation,
            bias=bias is not None,
            padding=padding,
            weights=self._name(node, values),
        )

    def _padded(
        self, x: Value, pads: tuple[list[int], list[int]], kernel: Size, dilation: int = 1
    ) -> tuple[Value, Padding]:
        """Return what a window reads, and its padding: zeros of their own if that has no name."""
        if tuple(pads[0]) == tuple(pads[1]) == window_padding(kernel, dilation) and any(pads[0]):
            return x, "same"
        if any(pads[0]) or any(pads[1]):
            x = self._add_op("zero_pad", x, before=(0, *pads[0]), behind=(0, *pads[1]))
        return x, "valid"

    def _batch_norm(self, node: NodeProto) -> Value:
        found = attributes_of(node)
        if found.get("training_mode", 0) or found.get("spatial", 1) != 1:
            raise refusal(node, "it is in training mode")
        values = {
            local: self._weight(node, place)
            for place, local in enumerate(("scale", "shift", "mean", "variance"), 1)
        }
        epsilon = number_of(found.get("epsilon", 1e-5))
        x = self._value(node.input[0])
        return self._add_op("batch_norm", x, epsilon=epsilon, weights=self._name(node, values))

    def _clip(self, node: NodeProto) -> Value:
        found = attributes_of(node)
        limits = [found.get("min"), found.get("max")]
        for place in (1, 2):
            if len(node.input) > place and node.input[place]:
                limits[place - 1] = self._weight(node, place).item()
        kinds = {(0.0, 6.0): "relu6", (0.0, None): "relu"}
        kind = kinds.get(tuple(limits))  # type: ignore[arg-type]
        if kind is None:
            raise refusal(node, f"it clips to {limits}, not to [0, 6]")
        return self._add_op(kind, self._value(node.input[0]))

    def _hard_sigmoid(self, node: NodeProto) -> Value:
        found = attributes_of(node)
        if abs(found.get("alpha", 0.2) - 1 / 6) > 1e-6 or abs(found.get("beta", 0.5) - 0.5) > 1e-6:
            raise refusal(node, "α must be 1/6 and β 1/2")
        return self._add_op("hard_sigmoid", self._value(node.input[0]))

    def _with_alpha(self, node: NodeProto) -> Value:
        x, found = self._value(node.input[0]), attributes_of(node)
        if node.op_type == "Elu":
            return self._add_op("elu", x, alpha=number_of(found.get("alpha", 1.0)))
        return self._add_op("leaky_relu", x, slope=number_of(found.get("alpha", 0.01)))

    def _add(self, node: NodeProto) -> Value:
        constant = [name for name in node.input if name in self.constants]
        if constant:
            folded = self._folded(node, constant[0])
            return self._add_bias(node, constant[0]) if folded is None else folded
        total, *others = [self._value(name) for name in node.input]
        for other in others:
            total = self._add_op("sum", total, other)
        return total

    def _add_bias(self, node: NodeProto, bias: str) -> Value:
        """Read a MatMul again, now that what is added to it is known."""
        (product, *more) = [name for name in node.input if name != bias]
        matmul = self.products.get(product)
        if matmul is None or more or self.readers[product] > 1:
            raise refusal(node, f"it adds the constant {bias!r}")
        values = np.asarray(self.constants[bias], np.float32)
        weight = self._weight(matmul, 1).T
        if values.size != len(weight):
            raise refusal(node, f"it adds {values.size} constants to {len(weight)} features")
        return self._linear(node, self._value(matmul.input[0]), weight, values, matmul.input[1])

    def _folded(self, node: NodeProto, constant: str) -> Value | None:
        """Make a factor or summand of each channel part of the batch norm before it."""
        (name,) = [name for name in node.input if name != constant] or [constant]
        numbers = np.asarray(self.constants[constant], np.float32)
        value = self.values.get(name)
        if value is None or self.readers[name] > 1 or len(value.shape) != 3:
            return None
        norm = self.g.nodes[value.index]
        sizes = (1, *numbers.shape)[-3:]
        if not isinstance(norm.op, BatchNorm) or sizes not in ((value.shape[0], 1, 1), (1,)):
            return None
        for local in ("scale", "shift") if node.op_type == "Mul" else ("shift",):
            weight = self.weights[f"{norm.weights}/{local}"]
            change = np.multiply if node.op_type == "Mul" else np.add
            self.weights[f"{norm.weights}/{local}"] = change(weight, numbers.reshape(-1))
        self.named[norm.weights] = (node.output[0],)  # its values are no longer those of the file
        return value

    def _mul(self, node: NodeProto) -> Value:
        first, second = node.input
        constant = second if second in self.constants else first
        if constant in self.constants:
            folded = self._folded(node, constant)
            if folded is None:
                raise refusal(node, "its constant is no factor of channels behind a batch norm")
            return folded
        for one, other in ((first, second), (second, first)):
            if self.sigmoids.get(one) == other:
                return self._add_op("swish", self._value(other))
        x, y = self._value(first), self._value(second)
        if len(y.shape) > len(x.shape):
            x, y = y, x
        return self._add_op("multiply", x, y)

    def _pool(self, node: NodeProto) -> Value:
        found, x = attributes_of(node), self._value(node.input[0])
        shape = found["kernel_shape"]
        whole = node.op_type == "AveragePool" and tuple(shape) == x.shape[1:]
        if whole and not any(found.get("pads", [])):
            return self._add_op("global_avg_pool", x)
        kernel, stride = window_size(shape), window_size(found.get("strides", [1, 1]))
        if not (isinstance(kernel, int) and isinstance(stride, int)):
            raise refusal(node, "its window or its step is not square")
        if set(found.get("dilations", [1])) != {1}:
            raise refusal(node, "it is dilated")
        counts = node.op_type == "AveragePool" and found.get("count_include_pad", 0)
        if counts and found.get("ceil_mode", 0):
            raise refusal(node, "it counts the padding, and rounds sizes up")
        pads = pads_of(found, x.shape[1:], kernel, stride)
        read, padding = self._padded(x, pads, 1 if counts else kernel)
        if read is not x and not counts:
            if node.op_type == "AveragePool":
                raise refusal(node, f"pads {pads[0]} and {pads[1]} are uneven, and not counted")
            if not self._is_rectified(x.index):
                raise refusal(node, f"pads {pads[0]} and {pads[1]} are uneven, of negative values")
        x = read
        return self._add_op(
            _SAME_NAME[node.op_type], x, kernel=kernel, stride=stride, padding=padding
        )

    def _is_rectified(self, index: int) -> bool:
        """Tell whether zeros are as good as nothing beside a node's values."""
        node = self.g.nodes[index]
        if node.op.kind in _STILL_RECTIFIED:
            return all(self._is_rectified(each) for each in node.inputs)
        return node.op.kind in _RECTIFIED

    def _gemm(self, node: NodeProto) -> Value:
        found = attributes_of(node)
        if found.get("alpha", 1) != 1 or found.get("beta", 1) != 1 or found.get("transA", 0):
            raise refusal(node, "with α or β, or transA")
        weight = self._weight(node, 1)
        bias = self._weight(node, 2) if len(node.input) > 2 and node.input[2] else None
        weight = weight if found.get("transB", 0) else weight.T
        return self._linear(node, self._value(node.input[0]), weight, bias)

    def _matmul(self, node: NodeProto) -> Value:
        self.products[node.output[0]] = node
        return self._linear(node, self._value(node.input[0]), self._weight(node, 1).T, None)

    def _linear(
        self, node: NodeProto, x: Value, weight: Array, bias: Array | None, called: str = ""
    ) -> Value:
        values = {"weight": weight} | ({} if bias is None else {"bias": bias.reshape(-1)})
        return self._add_op(
            "linear",
            x,
            features=weight.shape[0],
            bias=bias is not None,
            weights=self._name(node, values, called),
        )

    def _name(self, node: NodeProto, values: Mapping[str, Array], called: str = "") -> str:
        """Name a layer after its first weight, and keep the weights under that name."""
        own = (node.op_type, *(name for name in node.input if name in self.constants))
        parts = re.split(r"[/.]", (called or node.input[1]).replace("::", "."))
        stem = re.sub(r"[^\w/]", "_", "/".join(parts[:-1]) or parts[-1])
        name, count = stem, 1
        while self.named.setdefault(name, own) != own:
            count += 1
            name = f"{stem}_{count}"
        for local, value in values.items():
            self.weights[f"{name}/{local}"] = np.ascontiguousarray(value)
        return name
