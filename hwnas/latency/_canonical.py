"""A graph in the form that a runtime's decisions depend on.

Weight names, dropout and repeated sub-expressions are gone: two graphs with the same canonical form
become the same kernels. An op is named by the ONNX nodes that it writes, not by its attributes, so
attributes that only choose weights do not split what is the same to the runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwnas.graph import Graph, Op, Primitive, Shape


@dataclass(frozen=True, slots=True)
class OpForm:
    """What an op with given input shapes writes as ONNX.

    Attributes:
        text: The ONNX nodes with attributes and shapes; equal texts are the same to a runtime.
        types: Operators of these nodes, in order; empty for an op that writes nothing (dropout).
        kind: The operators joined: what neighbours see of the op.
        has_weights: Whether it has weights of its own.
    """

    text: str
    types: tuple[str, ...]
    kind: str
    has_weights: bool


class OpForms:
    """Numbers the distinct op forms, in order of first sight."""

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self._ids: dict[str, int] = {text: i for i, text in enumerate(texts)}
        self._known: dict[tuple[Op, tuple[Shape, ...]], tuple[int, OpForm]] = {}

    @property
    def texts(self) -> list[str]:
        """The forms' texts by number."""
        return list(self._ids)

    def of(self, op: Primitive, shapes: tuple[Shape, ...]) -> tuple[int, OpForm]:
        """Return number and form of an op with given input shapes."""
        known = self._known.get((op, shapes))
        if known is None:
            form = _form(op, shapes)
            known = self._ids.setdefault(form.text, len(self._ids)), form
            self._known[op, shapes] = known
        return known


class _Probe:
    """Takes down what an op writes; an `OnnxNodeWriter` without values."""

    def __init__(self, op: Primitive, shapes: tuple[Shape, ...]) -> None:
        self.input_shapes: Sequence[Shape] = shapes
        self.lines: list[str] = []
        self.types: list[str] = []
        self._specs = op.weights(shapes)

    def emit(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        settings = ",".join(f"{name}={value}" for name, value in sorted(attributes.items()))
        self.types.append(op_type)
        self.lines.append(f"{op_type}({','.join(inputs)};{settings})")
        return f"%{len(self.types)}"

    def emit_many(
        self, op_type: str, inputs: Sequence[str], count: int, **attributes: Any
    ) -> list[str]:
        first = self.emit(op_type, inputs, **attributes)
        return [first, *(f"{first}:{i}" for i in range(1, count))]

    def weight(self, local: str) -> str:
        return f"{local}{list(self._specs[local].shape)}"

    def array(self, local: str) -> np.ndarray[Any, Any]:
        return np.zeros(self._specs[local].shape, np.float32)

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> str:
        if np.issubdtype(value.dtype, np.floating):
            return f"{value.dtype}{list(value.shape)}"
        return f"{value.dtype}{value.tolist()}"


def _form(op: Primitive, shapes: tuple[Shape, ...]) -> OpForm:
    if not shapes:
        return OpForm(op.kind, (), op.kind, has_weights=False)
    probe = _Probe(op, shapes)
    op.to_onnx(probe, [f"x{i}" for i in range(len(shapes))])
    text = f"{'|'.join(probe.lines)}<{';'.join(map(str, shapes))}>"
    return OpForm(text, tuple(probe.types), "+".join(probe.types), bool(op.weights(shapes)))


@dataclass(frozen=True, slots=True)
class CanonicalNode:
    """One distinct computation of a graph.

    Attributes:
        form_id: Number of the op's form, unique together with `shape` for the input.
        form: The op's form.
        inputs: Canonical nodes that it reads.
        shape: Shape of its output.
    """

    form_id: int
    form: OpForm
    inputs: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True, slots=True)
class CanonicalGraph:
    """Distinct computations of a graph, in topological order.

    Attributes:
        nodes: The computations.
        consumers: For each, the nodes that read it; twice if they read it twice.
        is_output: For each, whether it is a result of the network.
        place: For each node of the expanded graph, the canonical node that computes it.
        source: For each canonical node, the first node of the expanded graph that it stands for.
    """

    nodes: tuple[CanonicalNode, ...]
    consumers: tuple[tuple[int, ...], ...]
    is_output: tuple[bool, ...]
    place: tuple[int, ...]
    source: tuple[int, ...]

    @property
    def text(self) -> tuple[Any, ...]:
        """A value that is equal for equal canonical graphs."""
        return tuple((node.form_id, node.inputs, node.shape) for node in self.nodes)


def canonical(graph: Graph, forms: OpForms) -> CanonicalGraph:
    """Return the canonical form of a graph.

    Args:
        graph: Any graph; it is expanded first.
        forms: Numbers the ops.
    """
    expanded = graph.inference().expanded()
    nodes: list[CanonicalNode] = []
    place: list[int] = []
    source: list[int] = []
    known: dict[tuple[int, tuple[int, ...], str], int] = {}
    for index, node in enumerate(expanded.nodes):
        assert isinstance(node.op, Primitive)
        shapes = tuple(expanded.nodes[i].shape for i in node.inputs)
        form_id, form = forms.of(node.op, shapes)
        inputs = tuple(place[i] for i in node.inputs)
        if inputs and not form.types:
            place.append(inputs[0])
            continue
        key = (form_id, inputs, node.weights if form.has_weights else "")
        at = known.setdefault(key, len(nodes))
        if at == len(nodes):
            nodes.append(CanonicalNode(form_id, form, inputs, node.shape))
            source.append(index)
        place.append(at)
    readers: list[list[int]] = [[] for _ in nodes]
    for index, each in enumerate(nodes):
        for i in each.inputs:
            readers[i].append(index)
    outputs = {place[i] for i in expanded.outputs}
    return CanonicalGraph(
        tuple(nodes),
        tuple(tuple(each) for each in readers),
        tuple(i in outputs for i in range(len(nodes))),
        tuple(place),
        tuple(source),
    )


def names_of(place: Sequence[int]) -> Mapping[str, int]:
    """Return the canonical node of each name that the exporter gives to a node or its output."""
    return {f"n{index}": at for index, at in enumerate(place)}
