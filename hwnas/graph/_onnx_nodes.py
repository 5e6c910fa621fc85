"""What is said at the nodes of an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hwnas.errors import UserInputError
from hwnas.graph.op import Size, both

if TYPE_CHECKING:
    from onnx import NodeProto

Array: TypeAlias = np.ndarray[Any, Any]


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of an ONNX node by name."""
    from onnx import helper

    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def refusal(node: NodeProto, reason: str) -> UserInputError:
    """Return the error that names a node and says what is wrong with it."""
    name = node.name or node.output[0]
    return UserInputError(f"ONNX: {node.op_type} {name!r} is not supported: {reason}")


def number_of(value: float) -> float:
    """Return an attribute as it was written: the file has float32."""
    return float(f"{value:.6g}")


def window_size(sizes: Sequence[int]) -> Size:
    """Return height and width as ops have them."""
    height, width = sizes
    return height if height == width else (height, width)


def pads_of(
    found: Mapping[str, Any], image: Sequence[int], kernel: Size, stride: Size, dilation: int = 1
) -> tuple[list[int], list[int]]:
    """Return how far windows reach beyond an image, before and behind it, in each direction.

    Args:
        found: Attributes of the node: ``pads``, ``auto_pad``, ``ceil_mode``.
        image: Height and width.
        kernel: Of the window.
        stride: Between windows.
        dilation: Between taps.
    """
    auto = found.get("auto_pad", b"NOTSET")
    pads = [0] * 4 if auto == b"VALID" else list(found.get("pads", [0] * 4))
    before, behind = pads[:2], pads[2:]
    for i, (size, taps, step) in enumerate(zip(image, both(kernel), both(stride), strict=True)):
        span = dilation * (taps - 1) + 1
        if auto.startswith(b"SAME"):
            total = max(0, (-(-size // step) - 1) * step + span - size)
            less, more = total // 2, total - total // 2
            before[i], behind[i] = (less, more) if auto == b"SAME_UPPER" else (more, less)
        elif found.get("ceil_mode", 0):
            windows = -(-(size + before[i] + behind[i] - span) // step)
            if windows * step < size + before[i]:  # none may begin behind the image
                behind[i] = windows * step + span - size - before[i]
    return before, behind


def constant_of(node: NodeProto, constants: Mapping[str, Array]) -> Array | None:
    """Return the result of a node that depends on constants only; None if it does not."""
    from onnx import numpy_helper

    found = attributes_of(node)
    if node.op_type == "Constant":
        for name, value in found.items():
            if name == "value":
                return numpy_helper.to_array(value)
            if name in ("value_float", "value_int", "value_floats", "value_ints"):
                return np.asarray(value)
        raise refusal(node, "it is no tensor of numbers")
    if any(name not in constants for name in node.input if name):
        return None
    first = constants[node.input[0]]
    if node.op_type == "ConstantOfShape":
        fill = (
            numpy_helper.to_array(found["value"]) if "value" in found else np.zeros(1, np.float32)
        )
        return np.full(first.tolist(), fill.item(), fill.dtype)
    if node.op_type == "Unsqueeze":
        axes = found["axes"] if "axes" in found else constants[node.input[1]].tolist()
        return np.expand_dims(first, tuple(axes))
    return first if node.op_type in ("Identity", "Dropout") else None
