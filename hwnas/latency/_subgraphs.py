"""Kernels inside `If`, `Loop` and `Scan`: each counted as often as it runs.

A network's control flow is followed with the input that it is timed with: the branch that is taken
then, and as many trips as are made then. What a control node costs beyond its body is measured with
an empty body. A loop whose trips cannot be told stays one kernel that cannot be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hwnas.errors import DeviceError
from hwnas.latency.kernels import Kernel, kernels_of
from hwnas.latency.runtimes import TensorType

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

Values: TypeAlias = "Mapping[str, np.ndarray[Any, Any]]"
#: Runs a model on given inputs, or random ones, and returns every tensor in it.
RunAll: TypeAlias = "Callable[[ModelProto, Values | None], Values]"

CONTROL = {"If", "Loop", "Scan"}


def walk(
    model: ModelProto, run_all: RunAll, feeds: Values | None = None
) -> Iterator[tuple[NodeProto, Kernel]]:
    """Yield each node of an optimised model with each kernel that it runs.

    Args:
        model: The graph that the runtime executes.
        run_all: Tells the value of every tensor.
        feeds: Its inputs; random if None.

    Raises:
        DeviceError: The runtime cannot run the model, or a body.
    """
    values = run_all(model, feeds)
    types = {name: type_of(value) for name, value in values.items()}
    weights = {each.name: each for each in model.graph.initializer}
    for node, kernel in kernels_of(model, types):
        if node.op_type not in CONTROL or node.domain not in {"", "ai.onnx"}:
            yield node, kernel
            continue
        for inner in _control(node, kernel, model, values, weights, run_all):
            yield node, inner


def type_of(value: Any) -> TensorType:
    """Return type and shape of a tensor's value.

    Raises:
        DeviceError: It is a sequence or a map.
    """
    from onnx import helper

    if not isinstance(value, np.ndarray):
        raise DeviceError(f"a tensor of the model is a {type(value).__name__}, not an array")
    return TensorType(int(helper.np_dtype_to_tensor_dtype(value.dtype)), value.shape)


def _control(
    node: NodeProto,
    kernel: Kernel,
    model: ModelProto,
    values: Values,
    weights: Mapping[str, Any],
    run_all: RunAll,
) -> Iterator[Kernel]:
    from onnx import numpy_helper

    def value_of(name: str) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = (
            numpy_helper.to_array(weights[name]) if name in weights else values[name]
        )
        return found

    bodies = {each.name: each.g for each in node.attribute if each.HasField("g")}
    trips = _trips(node, bodies, value_of, values)
    if trips is None:
        yield kernel
        return
    attributes = tuple(
        (name, {"walked": trips[name]} if name in trips else value)
        for name, value in kernel.attributes
    )
    yield replace(kernel, attributes=attributes)
    for name, count in trips.items():
        if count == 0:
            continue
        body = bodies[name]
        inner, feeds = _body_model(body, model, values)
        feeds.update(_first_inputs(node, body, value_of))
        found = [each for _, each in walk(inner, run_all, feeds)]
        for _ in range(count):
            yield from found


def _trips(
    node: NodeProto,
    bodies: Mapping[str, GraphProto],
    value_of: Callable[[str], np.ndarray[Any, Any]],
    values: Values,
) -> dict[str, int] | None:
    """Return how often each body runs; None if that cannot be told."""
    if node.op_type == "If":
        is_taken = bool(np.all(value_of(node.input[0])))
        return {"then_branch": int(is_taken), "else_branch": int(not is_taken)}
    settings = {each.name: each for each in node.attribute}
    if node.op_type == "Scan":
        first = len(node.input) - settings["num_scan_inputs"].i
        axes = settings["scan_input_axes"].ints if "scan_input_axes" in settings else [0]
        return {"body": value_of(node.input[first]).shape[axes[0]]}
    states = len(node.input) - 2
    scanned = [name for name in node.output[states:] if name]
    if scanned:
        return {"body": values[scanned[0]].shape[0]}
    body = bodies["body"]
    # The body hands on the condition that it is given, or a constant.
    condition = body.output[0].name
    constants = {each.name for each in body.initializer} | {body.input[1].name}
    writer = next((each for each in body.node if condition in each.output), None)
    is_fixed = condition in constants or (
        writer is not None
        and (
            writer.op_type == "Constant"
            or (writer.op_type == "Identity" and writer.input[0] in constants)
        )
    )
    if node.input[0] and is_fixed:
        return {"body": int(value_of(node.input[0]))}
    return None


def _body_model(
    body: GraphProto, model: ModelProto, values: Values
) -> tuple[ModelProto, dict[str, np.ndarray[Any, Any]]]:
    """Return a body as a model of its own, and what it reads from outside."""
    import onnx

    inner = onnx.ModelProto()
    inner.CopyFrom(model)
    inner.graph.CopyFrom(body)
    own = {each.name for each in (*body.input, *body.initializer)}
    own |= {name for node in body.node for name in node.output}
    outside = sorted(_reads(body) - own)
    outer_weights = {each.name: each for each in model.graph.initializer}
    inner.graph.initializer.extend(outer_weights[name] for name in outside if name in outer_weights)
    feeds = {name: values[name] for name in outside if name not in outer_weights}
    inner.graph.input.extend(_info(name, value) for name, value in feeds.items())
    return inner, feeds


def _reads(graph: GraphProto) -> set[str]:
    """Return all names that a graph reads, its own sub-graphs included."""
    found = {name for node in graph.node for name in node.input if name}
    found |= {each.name for each in graph.output}
    for node in graph.node:
        for each in node.attribute:
            if each.HasField("g"):
                made = {name for inner in each.g.node for name in inner.output}
                made |= {named.name for named in (*each.g.input, *each.g.initializer)}
                found |= _reads(each.g) - made
    return found


def _first_inputs(
    node: NodeProto, body: GraphProto, value_of: Callable[[str], np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]]:
    """Return what a body reads in its first trip; types of its inputs are filled in."""
    given: list[np.ndarray[Any, Any]] = []
    if node.op_type == "Loop":
        given = [np.array(0, np.int64), np.array(True), *map(value_of, node.input[2:])]
    elif node.op_type == "Scan":
        settings = {each.name: each for each in node.attribute}
        scanned = settings["num_scan_inputs"].i
        states = len(node.input) - scanned
        axes = settings["scan_input_axes"].ints if "scan_input_axes" in settings else [0] * scanned
        given = [value_of(name) for name in node.input[:states]]
        given += [
            np.take(value_of(name), 0, axis)
            for name, axis in zip(node.input[states:], axes, strict=True)
        ]
    return {
        info.name: np.ascontiguousarray(value).reshape(value.shape)
        for info, value in zip(body.input, given, strict=True)
    }


def _info(name: str, value: np.ndarray[Any, Any]) -> Any:
    from onnx import helper

    kind = type_of(value)
    return helper.make_tensor_value_info(name, kind.dtype, kind.shape)


def with_empty_bodies(kernel: Kernel) -> tuple[dict[str, Any], dict[int, np.ndarray[Any, Any]]]:
    """Return the attributes of a control node whose bodies do nothing, and inputs to fix.

    The bodies hand on what they are given, and write constants of the right shape.
    """
    attributes = dict(kernel.attributes)
    outputs = [each for each in kernel.outputs if each is not None]
    if kernel.op_type == "If":
        taken = bool(attributes["then_branch"]["walked"])
        for name in ("then_branch", "else_branch"):
            attributes[name] = _empty_body(name, [], outputs)
        return attributes, {0: np.full(_shape(kernel, 0), taken)}
    trips = attributes["body"]["walked"]
    inputs = [each.type for each in kernel.inputs if each is not None]
    if kernel.op_type == "Loop":
        states = [TensorType(9, ()), *(each.type for each in kernel.inputs[2:] if each is not None)]
        scanned = [each._replace(shape=each.shape[1:]) for each in outputs[len(states) - 1 :]]
        body = _empty_body("body", states, scanned, first=[TensorType(7, ())])
        attributes["body"] = body
        return attributes, {0: np.array(trips, np.int64), 1: np.array(True)}
    scans = attributes["num_scan_inputs"]
    states = inputs[: len(inputs) - scans]
    axes = attributes.get("scan_input_axes", [0] * scans)
    slices = [
        each._replace(shape=(*each.shape[:axis], *each.shape[axis + 1 :]))
        for each, axis in zip(inputs[len(states) :], axes, strict=True)
    ]
    written = outputs[len(states) :]
    out_axes = attributes.get("scan_output_axes", [0] * len(written))
    scanned = [
        each._replace(shape=(*each.shape[:axis], *each.shape[axis + 1 :]))
        for each, axis in zip(written, out_axes, strict=True)
    ]
    attributes["body"] = _empty_body("body", states, scanned, last=slices)
    return attributes, {}


def _shape(kernel: Kernel, index: int) -> tuple[int, ...]:
    operand = kernel.inputs[index]
    return () if operand is None else operand.type.shape


def _empty_body(
    name: str,
    states: Sequence[TensorType],
    scanned: Sequence[TensorType],
    *,
    first: Sequence[TensorType] = (),
    last: Sequence[TensorType] = (),
) -> Any:
    """Return a body with inputs `first`, `states`, `last` and outputs `states`, `scanned`."""
    from onnx import helper, numpy_helper

    def infos(prefix: str, types: Sequence[TensorType]) -> list[Any]:
        return [
            helper.make_tensor_value_info(f"{name}_{prefix}{i}", each.dtype, each.shape)
            for i, each in enumerate(types)
        ]

    nodes, constants = [], []
    for i in range(len(states)):
        nodes.append(helper.make_node("Identity", [f"{name}_s{i}"], [f"{name}_t{i}"]))
    for i, each in enumerate(scanned):
        value = np.ones(each.shape, helper.tensor_dtype_to_np_dtype(each.dtype))
        constants.append(numpy_helper.from_array(value, f"{name}_c{i}"))
        nodes.append(helper.make_node("Identity", [f"{name}_c{i}"], [f"{name}_o{i}"]))
    return helper.make_graph(
        nodes,
        name,
        [*infos("f", first), *infos("s", states), *infos("l", last)],
        [*infos("t", states), *infos("o", scanned)],
        constants,
    )
