"""A child model: a list of ops with static shapes, each naming the weights it uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from hwnas.errors import ShapeError
from hwnas.graph.op import Composite, Op, Primitive, Shape, WeightSpec

if TYPE_CHECKING:
    from hwnas.kernels.form import Form


@dataclass(frozen=True, slots=True)
class Node:
    """One op of a graph.

    Attributes:
        op: The op with its attributes.
        inputs: Indices of the nodes that it reads.
        weights: Prefix of its weights' names; empty for an op without weights.
        shape: Shape of its output, without the batch.
    """

    op: Op
    inputs: tuple[int, ...]
    weights: str
    shape: Shape


class Binding(NamedTuple):
    """A weight that a node uses: its name within the op, its full name, and what it is."""

    local: str
    name: str
    spec: WeightSpec


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order; node 0 is the input.

    Attributes:
        nodes: The ops.
        outputs: Indices of the results; the first is the logits. Further ones help training only:
            logits of auxiliary classifiers, or a state that is carried on.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]

    @property
    def input_shape(self) -> Shape:
        """(C, H, W) of the input."""
        return self.nodes[0].shape

    def input_shapes(self, node: Node) -> tuple[Shape, ...]:
        """Return the shapes that a node of this graph reads."""
        return tuple(self.nodes[index].shape for index in node.inputs)

    def inference(self) -> Graph:
        """Return what the first output needs: the network that is counted, priced and exported."""
        return self._inference

    @cached_property
    def _inference(self) -> Graph:
        if len(self.outputs) == 1:
            return self
        return _without_unread(Graph(self.nodes, self.outputs[:1]))

    def expanded(self) -> Graph:
        """Return the same network in primitives only, without nodes that nothing reads."""
        return self._expanded

    def fusable(self) -> Graph:
        """Return the same network, expanded but for the composites that have a fused form.

        A composite without one is expanded only as far as its parts have none either.
        """
        return self._fusable

    @cached_property
    def _expanded(self) -> Graph:
        return self._expand(keeps_fused=False)

    @cached_property
    def _fusable(self) -> Graph:
        return self._expand(keeps_fused=True)

    def _expand(self, *, keeps_fused: bool) -> Graph:
        nodes: list[Node] = []
        place = [-1] * len(self.nodes)
        for index, node in enumerate(self.nodes):
            inputs = tuple(place[i] for i in node.inputs)
            if _stays(node.op, len(inputs), keeps_fused=keeps_fused):
                place[index] = len(nodes)
                nodes.append(Node(node.op, inputs, node.weights, node.shape))
                continue
            assert isinstance(node.op, Composite)
            inner, result = expansion(node.op, self.input_shapes(node), keeps_fused=keeps_fused)
            place[index] = _splice(nodes, inner, result, inputs, node.weights)
        return _without_unread(Graph(tuple(nodes), tuple(place[i] for i in self.outputs)))

    def forms(self) -> Sequence[Form | None]:
        """Return the fused form of each node, None for one that has none."""
        return self._forms

    @cached_property
    def _forms(self) -> list[Form | None]:
        return [node.op.fused(len(node.inputs)) for node in self.nodes]

    def expansion_of(self, node: Node) -> tuple[tuple[Node, ...], int]:
        """Return the primitives that a composite node stands for, and which one is its result."""
        assert isinstance(node.op, Composite)
        return expansion(node.op, self.input_shapes(node))

    def primitives(self) -> Iterator[tuple[Node, Primitive, tuple[Shape, ...]]]:
        """Yield node, op and input shapes of each node of the expanded graph."""
        expanded = self.expanded()
        for node in expanded.nodes:
            assert isinstance(node.op, Primitive)
            yield node, node.op, expanded.input_shapes(node)

    def bindings(self) -> Sequence[Sequence[Binding]]:
        """Return the weights that each node of the expanded graph uses."""
        return self.expanded()._bindings

    def fusable_bindings(self) -> Sequence[Sequence[Binding]]:
        """Return the weights that each node of the fusable graph uses."""
        return self.fusable()._bindings

    def weight_specs(self) -> Mapping[str, WeightSpec]:
        """Return all weights by name.

        Raises:
            ShapeError: Two ops name the same weight but need different shapes.
        """
        return self._weight_specs

    @cached_property
    def _bindings(self) -> list[list[Binding]]:
        return [
            [
                Binding(local, f"{node.weights}/{local}", spec)
                for local, spec in _local_weights(node.op, self.input_shapes(node)).items()
            ]
            for node in self.nodes
        ]

    @cached_property
    def _weight_specs(self) -> dict[str, WeightSpec]:
        specs: dict[str, WeightSpec] = {}
        for binding in chain.from_iterable(self.bindings()):
            known = specs.setdefault(binding.name, binding.spec)
            if known.shape != binding.spec.shape:
                raise ShapeError(
                    f"weight {binding.name!r} is used with shapes {known.shape} and "
                    f"{binding.spec.shape}",
                    "name weights after everything that decides their shape",
                )
        return specs


@lru_cache(maxsize=65536)
def expansion(
    op: Composite, shapes: tuple[Shape, ...], *, keeps_fused: bool = False
) -> tuple[tuple[Node, ...], int]:
    """Expand a composite once for all its uses with the same input shapes.

    Args:
        op: The composite.
        shapes: Those of its inputs.
        keeps_fused: Whether parts that have a fused form stay whole.

    Returns:
        Primitive nodes, and those kept whole, the first ``len(shapes)`` of which stand for the
        inputs, and the index of the result. Weight names are relative to the composite's.
    """
    from hwnas.graph.builder import GraphBuilder

    g = GraphBuilder.for_expansion(shapes)
    result = op.expand(g, g.inputs)
    nodes: list[Node] = list(g.nodes[: len(shapes)])
    place = list(range(len(shapes)))
    for node in g.nodes[len(shapes) :]:
        inputs = tuple(place[i] for i in node.inputs)
        if _stays(node.op, len(inputs), keeps_fused=keeps_fused):
            place.append(len(nodes))
            nodes.append(Node(node.op, inputs, node.weights, node.shape))
            continue
        assert isinstance(node.op, Composite)
        own_shapes = tuple(g.nodes[i].shape for i in node.inputs)
        inner, inner_result = expansion(node.op, own_shapes, keeps_fused=keeps_fused)
        place.append(_splice(nodes, inner, inner_result, inputs, node.weights))
    return tuple(nodes), place[result.index]


def _stays(op: Op, inputs: int, *, keeps_fused: bool) -> bool:
    """Tell whether an op is left as it is when a graph is expanded."""
    return not isinstance(op, Composite) or (keeps_fused and op.fused(inputs) is not None)


def _local_weights(op: Op, shapes: tuple[Shape, ...]) -> Mapping[str, WeightSpec]:
    """Return the weights of an op, those of a composite by their names within it."""
    if isinstance(op, Primitive):
        return op.weights(shapes)
    assert isinstance(op, Composite)
    nodes, _ = expansion(op, shapes)
    found = {}
    for node in nodes[len(shapes) :]:
        for local, spec in _local_weights(
            node.op, tuple(nodes[i].shape for i in node.inputs)
        ).items():
            found[f"{node.weights}/{local}"] = spec
    return found


def _splice(
    nodes: list[Node], inner: tuple[Node, ...], result: int, inputs: tuple[int, ...], prefix: str
) -> int:
    place = list(inputs)
    for node in inner[len(inputs) :]:
        name = f"{prefix}/{node.weights}" if node.weights else ""
        place.append(len(nodes))
        nodes.append(Node(node.op, tuple(place[i] for i in node.inputs), name, node.shape))
    return place[result]


def _without_unread(graph: Graph) -> Graph:
    is_read = [False] * len(graph.nodes)
    is_read[0] = True
    for index in graph.outputs:
        is_read[index] = True
    for index in range(len(graph.nodes) - 1, -1, -1):
        if is_read[index]:
            for i in graph.nodes[index].inputs:
                is_read[i] = True
    if all(is_read):
        return graph
    place: dict[int, int] = {}
    nodes: list[Node] = []
    for index, node in enumerate(graph.nodes):
        if is_read[index]:
            place[index] = len(nodes)
            inputs = tuple(place[i] for i in node.inputs)
            nodes.append(Node(node.op, inputs, node.weights, node.shape))
    return Graph(tuple(nodes), tuple(place[i] for i in graph.outputs))
