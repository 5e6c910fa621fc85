"""What a node of an ONNX file reads, and the nodes that only move values."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.errors import UserInputError
from hwnas.graph._onnx_nodes import Array, attributes_of, refusal
from hwnas.graph.builder import GraphBuilder, Value

if TYPE_CHECKING:
    from onnx import NodeProto


class LayoutReader:
    """Adds the nodes that move, join and pool values.

    Attributes:
        g: Where ops are added.
        constants: Values of the file that depend on no input, by name.
        values: Those that do.
        readers: How many nodes read each value.
    """

    g: GraphBuilder
    constants: dict[str, Array]
    values: dict[str, Value]
    readers: Counter[str]

    def _add_op(self, kind: str, *inputs: Value, **attributes: Any) -> Value:
        return getattr(self.g, kind)(*inputs, **attributes)  # type: ignore[no-any-return]

    def _value(self, name: str) -> Value:
        if name not in self.values:
            what = "is constant" if name in self.constants else "does not exist"
            raise UserInputError(f"ONNX: the value {name!r} {what}, where an image is expected")
        return self.values[name]

    def _weight(self, node: NodeProto, place: int) -> Array:
        name = node.input[place]
        if name not in self.constants:
            raise refusal(node, f"its input {name!r} is no constant")
        return np.asarray(self.constants[name], np.float32)

    def _concat(self, node: NodeProto) -> Value:
        parts = [self._value(name) for name in node.input]
        if attributes_of(node)["axis"] not in (1, -3) or any(
            len(each.shape) != 3 for each in parts
        ):
            raise refusal(node, "it does not join the channels of images")
        return self._add_op("concat", *parts) if len(parts) > 1 else parts[0]

    def _mean(self, node: NodeProto) -> Value:
        x = self._value(node.input[0])
        if node.op_type == "ReduceMean":
            axes = attributes_of(node).get("axes")
            if axes is None and len(node.input) > 1:
                axes = [int(each) for each in self._weight(node, 1)]
            if len(x.shape) != 3 or sorted(each % 4 for each in axes or ()) != [2, 3]:
                raise refusal(node, "it is not over height and width")
        return self._add_op("global_avg_pool", x)

    def _flatten(self, node: NodeProto) -> Value:
        """Make a vector of each image; what was pooled is one already."""
        x = self._value(node.input[0])
        size = math.prod(x.shape)
        if node.op_type == "Flatten" and attributes_of(node).get("axis", 1) != 1:
            raise refusal(node, "its axis is not 1")
        if node.op_type == "Reshape":
            wanted = [int(each) for each in self._weight(node, 1)]
            rest = [each for each in wanted[1:] if each != 1]
            if wanted[0] not in (-1, 0, 1) or rest not in ([size], [-1]):
                raise refusal(node, f"to {wanted}: it does not make vectors")
        if node.op_type == "Squeeze" and x.shape != (size,):
            raise refusal(node, "it is not behind a global pooling")
        return self._as_vector(x)

    def _as_vector(self, x: Value) -> Value:
        size = math.prod(x.shape)
        if x.shape == (size, 1, 1):  # the mean of one value: channels stay channels
            return self._add_op("global_avg_pool", x)
        return x if x.shape == (size,) else self._add_op("reshape", x, size=(size,))

    def _transpose(self, node: NodeProto) -> Value:
        x, order = self._value(node.input[0]), list(attributes_of(node).get("perm", ()))
        if x.shape == (math.prod(x.shape),) or x.shape[1:] == (1, 1):
            return self._as_vector(x)
        if order[:1] != [0]:
            raise refusal(node, "it moves the batch")
        return self._add_op("permute", x, axes=tuple(each - 1 for each in order[1:]))

    def _pad(self, node: NodeProto) -> Value:
        x, found = self._value(node.input[0]), attributes_of(node)
        pads = found["pads"] if "pads" in found else self._weight(node, 1).astype(int).tolist()
        fill = found.get("value", 0)
        if len(node.input) > 2 and node.input[2]:
            fill = self._weight(node, 2).item()
        before, behind = pads[: len(pads) // 2], pads[len(pads) // 2 :]
        mode = found.get("mode", b"constant")
        if mode != b"constant" or fill or min(pads) < 0 or before[0] or behind[0]:
            raise refusal(node, "it adds other things than zeros to images")
        return self._add_op("zero_pad", x, before=tuple(before[1:]), behind=tuple(behind[1:]))

    def _softmax(self, node: NodeProto) -> Value:
        x = self._value(node.input[0])
        if self.readers[node.output[0]] or len(x.shape) != 1:
            raise refusal(node, "it is not the end of a classifier")
        return x

    def _unsqueeze(self, node: NodeProto) -> Value:
        x, axes = self._value(node.input[0]), attributes_of(node).get("axes")
        axes = [int(each) for each in self._weight(node, 1)] if axes is None else list(axes)
        if len(x.shape) != 1 or sorted(axes) not in ([2, 3], [-2, -1]):
            raise refusal(node, "it is no factor for each channel")
        return x
