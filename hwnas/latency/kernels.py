"""The kernels that a runtime really executes for a network, after all its fusions.

A kernel is one node of the runtime's optimised graph with the types of everything it reads and
writes. Its *signature* is a line of text that says all that its speed depends on, and from which
it can be rebuilt as a model of its own to be measured:

```
com.microsoft.nchwc::Conv-1{'activation': 'Relu', 'group': 1, …}(f32[1,32,8,8], w:f32[32,32,3,3]) -> (f32[1,32,8,8])
```

``w:`` marks weights, ``=`` small integer constants (their values matter to shapes), ``-`` an
input that is left out. The number after the op is the opset version that defined it.
"""  # noqa: E501

from __future__ import annotations

import ast
import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.errors import UserInputError
from hwnas.latency.runtimes import Runtime, TensorType

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

#: Integer constants up to this many elements are part of a signature by value.
MAX_VALUES = 64

_DTYPE_NAMES = {
    1: "f32", 2: "u8", 3: "i8", 5: "i16", 6: "i32", 7: "i64", 9: "bool", 10: "f16", 11: "f64",
    12: "u32", 13: "u64", 16: "bf16",
}  # fmt: skip
_ITEM_BYTES = {2: 1, 3: 1, 5: 2, 7: 8, 9: 1, 10: 2, 11: 8, 13: 8, 16: 2}
#: Element types of constants that are part of a signature by value: shapes, axes, conditions.
_VALUED = {5, 6, 7, 9, 12, 13}
_QUANTISED = re.compile(r"QLinear|QGemm|QAttention|.*(QuantizeLinear|Integer)")
_DTYPE_NUMBERS = {name: number for number, name in _DTYPE_NAMES.items()}
_SIGNATURE = re.compile(
    r"^(?P<domain>[^:]*)::(?P<op>\w+)-(?P<version>\d+)(?P<attributes>\{.*\})"
    r"\((?P<inputs>[^()]*)\) -> \((?P<outputs>[^()]*)\)$",
    re.DOTALL,
)
_OPERAND = re.compile(
    r"(?P<weight>w:)?(?P<dtype>\w+)\[(?P<shape>[\d,]*)\](?:=\[(?P<values>[^\]]*)\])?"
)


@dataclass(frozen=True, slots=True)
class Operand:
    """What a kernel reads: an activation, a weight, or a constant whose value matters.

    Attributes:
        type: Element type and shape.
        is_weight: Whether it is known before the network runs.
        values: The value, for small integer constants.
    """

    type: TensorType
    is_weight: bool = False
    values: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """Return the operand's part of the signature."""
        text = ("w:" if self.is_weight else "") + _type_text(self.type)
        if self.values is not None:
            text += f"=[{','.join(map(str, self.values))}]"
        return text


@dataclass(frozen=True)
class Kernel:
    """One node of an optimised graph.

    Attributes:
        domain: Operator domain; empty for ONNX's own.
        op_type: Operator.
        version: Opset version that defined the operator.
        attributes: Name and value of each attribute, sorted by name.
        inputs: What it reads; None for an optional input that is left out.
        outputs: Types of what it writes; None for an optional output that is left out.
    """

    domain: str
    op_type: str
    version: int
    attributes: tuple[tuple[str, Any], ...]
    inputs: tuple[Operand | None, ...]
    outputs: tuple[TensorType | None, ...]

    def __hash__(self) -> int:
        """Hash the signature."""
        return hash(self.signature)

    @cached_property
    def signature(self) -> str:
        """The canonical line of text that names the kernel."""
        inputs = ", ".join("-" if each is None else str(each) for each in self.inputs)
        outputs = ", ".join("-" if each is None else _type_text(each) for each in self.outputs)
        attributes = dict(self.attributes)
        return (
            f"{self.domain}::{self.op_type}-{self.version}{attributes!r}({inputs}) -> ({outputs})"
        )

    @cached_property
    def family(self) -> str:
        """A coarse class of kernels that err alike: see `family_of`."""
        return family_of(self)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of its weights."""
        return sum(
            math.prod(each.type.shape) * _ITEM_BYTES.get(each.type.dtype, 4)
            for each in self.inputs
            if each is not None and each.is_weight
        )

    @classmethod
    def parse(cls, signature: str) -> Kernel:
        """Read a signature.

        Raises:
            UserInputError: The text is not a signature.
        """
        match = _SIGNATURE.match(signature)
        if match is None:
            raise UserInputError(f"not a kernel signature: {signature!r}")
        try:
            attributes = ast.literal_eval(match["attributes"])
            inputs = tuple(map(_parse_operand, _split(match["inputs"])))
            outputs = tuple(
                None if each is None else each.type
                for each in map(_parse_operand, _split(match["outputs"]))
            )
        except (ValueError, SyntaxError, KeyError) as error:
            raise UserInputError(f"not a kernel signature: {signature!r} ({error})") from error
        return cls(
            match["domain"], match["op"], int(match["version"]), tuple(attributes.items()),
            inputs, outputs,
        )  # fmt: skip

    def to_model(self) -> ModelProto:
        """Rebuild the kernel as an ONNX model of its own, with random weights.

        Raises:
            DeviceError: The kernel holds a sub-graph or a tensor too large for a signature.
        """
        from hwnas.latency._rebuild import to_model

        return to_model(self)


@dataclass(frozen=True, slots=True)
class Executed:
    """A kernel as a part of a network.

    Attributes:
        kernel: The kernel.
        names: Names that nodes or tensors of the network had before it was optimised, the best
            first: they tell which node the kernel computes.
        reads_plain: Whether it reads the ordinary memory layout.
        writes_plain: Whether it writes it.
    """

    kernel: Kernel
    names: tuple[str, ...]
    reads_plain: bool = True
    writes_plain: bool = True

    @property
    def is_reorder(self) -> bool:
        """Whether it only changes the memory layout."""
        return self.kernel.op_type in {"Reorder", "ReorderInput", "ReorderOutput"}


def family_of(kernel: Kernel) -> str:
    """Return the class of kernels that share a correction factor.

    Convolutions are told apart by how ONNX Runtime computes them: pointwise, depthwise, direct.
    """
    op = kernel.op_type
    if (
        op in {"Conv", "FusedConv", "QLinearConv", "Convolution"}
        and len(kernel.inputs) > 1
        and kernel.inputs[1] is not None
    ):
        attributes = dict(kernel.attributes)
        if attributes.get("group", 1) > 1:
            return "conv_depthwise"
        is_pointwise = kernel.inputs[1].type.shape[2:] == (1, 1)
        return "conv_pointwise" if is_pointwise else "conv_direct"
    if op in {"ReorderInput", "ReorderOutput"}:
        return "reorder"
    if "Pool" in op:
        return "pool"
    return "other"


def fused_kernels(model: ModelProto, runtime: Runtime) -> list[Kernel]:
    """Return the kernels that a runtime executes for a model, one for each node, in its order.

    Args:
        model: Any ONNX model; unknown sizes of its inputs are taken as 1.
        runtime: The runtime that optimises it.

    Raises:
        DeviceError: The runtime refuses the model.
    """
    return [each.kernel for each in runtime.kernels(model)]


def kernels_of(
    optimised: ModelProto, types: Mapping[str, TensorType]
) -> Iterator[tuple[NodeProto, Kernel]]:
    """Yield each node of an optimised model with its kernel; no node is left out.

    Args:
        optimised: The graph that the runtime executes.
        types: Types of its activations.
    """
    weights = {each.name: each for each in optimised.graph.initializer}
    versions = {each.domain: each.version for each in optimised.opset_import}
    for node in optimised.graph.node:
        yield (
            node,
            Kernel(
                domain=node.domain,
                op_type=node.op_type,
                version=_since(node, versions),
                attributes=attributes_of(node),
                inputs=tuple(
                    # The integers of a quantised operator are weights and zero points.
                    _operand(name, weights, types, by_value=not _QUANTISED.match(node.op_type))
                    for name in node.input
                ),
                outputs=tuple(types[name] if name else None for name in node.output),
            ),
        )


def _since(node: NodeProto, versions: Mapping[str, int]) -> int:
    import onnx

    domain = "" if node.domain == "ai.onnx" else node.domain
    version = versions.get(domain, 1)
    if onnx.defs.has(node.op_type, version, domain):
        return int(onnx.defs.get_schema(node.op_type, version, domain).since_version)
    return version


def attributes_of(node: NodeProto) -> tuple[tuple[str, Any], ...]:
    """Return a node's attributes as plain values, sorted by name; large ones as their hash."""
    from onnx import AttributeProto, TensorProto, helper, numpy_helper

    result: list[tuple[str, Any]] = []
    for each in sorted(node.attribute, key=lambda a: str(a.name)):
        value = helper.get_attribute_value(each)
        if each.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS, AttributeProto.SPARSE_TENSOR}:
            value = {"sha256": hashlib.sha256(each.SerializeToString()).hexdigest()[:16]}
        elif isinstance(value, TensorProto):
            array = numpy_helper.to_array(value)
            if array.size <= MAX_VALUES:
                value = (str(array.dtype), array.shape, tuple(array.ravel().tolist()))
            else:
                value = {"sha256": hashlib.sha256(array.tobytes()).hexdigest()[:16]}
        elif isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, float):
            value = float(np.format_float_positional(np.float32(value), unique=True))
        elif each.type == AttributeProto.STRINGS:
            value = [item.decode("utf-8", "replace") for item in value]
        elif not isinstance(value, int):
            value = list(value)
        result.append((each.name, value))
    return tuple(result)


def _operand(
    name: str,
    weights: Mapping[str, TensorProto],
    types: Mapping[str, TensorType],
    *,
    by_value: bool = True,
) -> Operand | None:
    from onnx import numpy_helper

    if not name:
        return None
    if name not in weights:
        return Operand(types[name])
    tensor = weights[name]
    kind = TensorType(tensor.data_type, tuple(tensor.dims))
    size = int(np.prod(tensor.dims)) if tensor.dims else 1
    if tensor.data_type in _VALUED and size <= MAX_VALUES and by_value:
        values = tuple(int(each) for each in numpy_helper.to_array(tensor).ravel())
        return Operand(kind, is_weight=True, values=values)
    return Operand(kind, is_weight=True)


def _type_text(kind: TensorType) -> str:
    name = _DTYPE_NAMES.get(kind.dtype, f"t{kind.dtype}")
    return f"{name}[{','.join(map(str, kind.shape))}]"


def _split(text: str) -> list[str]:
    """Split operands at ', ' (commas inside shapes are not followed by a space)."""
    return text.split(", ") if text else []


def _parse_operand(text: str) -> Operand | None:
    if text == "-":
        return None
    match = _OPERAND.fullmatch(text)
    if match is None:
        raise ValueError(f"cannot read the operand {text!r}")
    name = match["dtype"]
    dtype = _DTYPE_NUMBERS[name] if name in _DTYPE_NUMBERS else int(name[1:])
    values = match["values"]
    return Operand(
        TensorType(dtype, _numbers(match["shape"])),
        is_weight=match["weight"] is not None,
        values=None if values is None else _numbers(values),
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(",")) if text else ()
