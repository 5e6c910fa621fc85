"""A kernel as an ONNX model of its own, to be measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.errors import DeviceError
from hwnas.latency._subgraphs import with_empty_bodies

if TYPE_CHECKING:
    from onnx import ModelProto

    from hwnas.latency.kernels import Kernel, Operand

#: Random weights are scaled to keep products finite and away from denormals.
WEIGHT_SCALE = 0.1


def to_model(kernel: Kernel) -> ModelProto:
    """Rebuild a kernel, with random weights.

    Raises:
        DeviceError: It holds a sub-graph that was not followed, or a tensor too large for a
            signature.
    """
    from onnx import helper, numpy_helper

    opaque = [n for n, value in kernel.attributes if isinstance(value, dict) and "sha256" in value]
    if opaque:
        raise DeviceError(
            f"{kernel.op_type} cannot be measured on its own: its attribute {opaque[0]!r} is a "
            "sub-graph or a large tensor"
        )
    generator = np.random.default_rng(0)
    attributes = {name: _attribute_value(value) for name, value in kernel.attributes}
    fixed: Mapping[int, np.ndarray[Any, Any]] = {}
    if any(isinstance(value, dict) for value in attributes.values()):
        attributes, fixed = with_empty_bodies(kernel)
    names, infos, initializers = [], [], []
    for index, operand in enumerate(kernel.inputs):
        name = "" if operand is None else f"in{index}"
        names.append(name)
        if operand is None:
            continue
        if index in fixed:
            initializers.append(numpy_helper.from_array(fixed[index], name))
        elif operand.is_weight:
            value = _weight_value(operand, generator)
            initializers.append(numpy_helper.from_array(value, name))
        else:
            infos.append(
                helper.make_tensor_value_info(name, operand.type.dtype, operand.type.shape)
            )
    outputs = ["" if each is None else f"out{i}" for i, each in enumerate(kernel.outputs)]
    node = helper.make_node(
        kernel.op_type, names, outputs, domain=kernel.domain, name="kernel",
        **attributes,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "kernel",
        infos,
        [
            helper.make_tensor_value_info(name, each.dtype, each.shape)
            for name, each in zip(outputs, kernel.outputs, strict=True)
            if each is not None
        ],
        initializers,
    )
    imports = [helper.make_opsetid(kernel.domain, kernel.version)]
    if kernel.domain:
        imports.append(helper.make_opsetid("", 20))
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def _attribute_value(value: Any) -> Any:
    """Turn a tensor's plain value back into a tensor."""
    if isinstance(value, tuple):
        from onnx import numpy_helper

        dtype, shape, items = value
        return numpy_helper.from_array(np.array(items, dtype).reshape(shape))
    return value


def _weight_value(operand: Operand, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    from onnx import helper

    dtype = helper.tensor_dtype_to_np_dtype(operand.type.dtype)
    shape = operand.type.shape
    if operand.values is not None:
        return np.array(operand.values, dtype).reshape(shape)
    if np.issubdtype(dtype, np.floating):
        # Positive: a weight may be a variance.
        return (np.abs(generator.standard_normal(shape)) * WEIGHT_SCALE + 1e-3).astype(dtype)
    return np.zeros(shape, dtype)
