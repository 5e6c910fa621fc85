"""What is said at the nodes of an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwnas.errors import UserInputError
from hwnas.graph.op import Padding, Size, window_padding

if TYPE_CHECKING:
    from onnx import NodeProto


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of an ONNX node by name."""
    from onnx import helper

    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def refusal(node: NodeProto, reason: str) -> UserInputError:
    """Return the error that names a node and says what is wrong with it."""
    name = node.name or node.output[0]
    return UserInputError(f"ONNX: {node.op_type} {name!r} is not supported: {reason}")


def window_size(sizes: Sequence[int]) -> Size:
    """Return height and width as ops have them."""
    height, width = sizes
    return height if height == width else (height, width)


def padding_of(node: NodeProto, found: Mapping[str, Any], kernel: Size, dilation: int) -> Padding:
    """Return which padding a window has.

    Raises:
        UserInputError: It is neither half the window on each side nor none.
    """
    if found.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise refusal(node, "auto_pad")
    pads = tuple(found.get("pads", [0] * 4))
    same = window_padding(kernel, dilation)
    if pads == same * 2:
        return "same"
    if not any(pads):
        return "valid"
    raise refusal(node, f"pads {list(pads)}: neither none nor {list(same * 2)}")
