"""Changes to a network that exists: scale the channels of a layer, insert a layer, remove one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hwnas.errors import HwnasError, UserInputError
from hwnas.graph.builder import GraphBuilder, Value
from hwnas.graph.channels import WHOLE, Channels, is_depthwise, makes_channels
from hwnas.graph.graph import Graph, Node
from hwnas.graph.op import Composite, Op
from hwnas.graph.ops.activation import Relu, Relu6
from hwnas.graph.ops.classifier import Classifier
from hwnas.graph.ops.conv import Conv
from hwnas.graph.ops.conv_bn import ConvBn
from hwnas.graph.ops.input import Input
from hwnas.graph.ops.linear import Linear
from hwnas.graph.ops.norm import BatchNorm
from hwnas.graph.ops.sep_conv import SepConv

Kind = Literal["conv3", "sep3", "conv1"]
#: Kinds of an inserted layer, by the name that picks and weights have for them.
KINDS: tuple[Kind, ...] = ("conv3", "sep3", "conv1")
#: What can stay without a ReLU: a separable convolution starts with one.
_LINEAR_KINDS: tuple[Kind, ...] = ("conv3", "conv1")

_SIZES = re.compile(r"~\d+to\d+")
_INSERTED = re.compile(r"\+\d+(conv3|sep3|conv1)")


def plain_name(weights: str) -> str:
    """Return the name of a layer or a weight without the channels that a change appended."""
    return _SIZES.sub("", weights)


def is_inserted(weights: str) -> bool:
    """Tell whether a layer, or the layer of a weight, was inserted by a transformation."""
    return _INSERTED.search(weights) is not None


@dataclass(frozen=True)
class Transformed:
    """A network and what it was made from. Each change returns a new one.

    A layer whose channels are not the original ones has them in the name of its weights:
    ``stem~1to24`` reads 1 and makes 24. An inserted layer is named after the one at which it is
    and the step that put it there: ``stem+0conv3~24to24``.

    Attributes:
        graph: The network, in primitives and the composites of `hwnas.graph.channels.WHOLE`.
        original: (read, made) channels of each layer of the base network.
    """

    graph: Graph
    original: Mapping[str, tuple[int, int]]

    @classmethod
    def base(cls, graph: Graph) -> Transformed:
        """Return a network to which nothing is done yet.

        Raises:
            UserInputError: It reads something else than images, or its names would be ambiguous.
        """
        if len(graph.input_shape) != 3:
            raise UserInputError(
                "a base network must read images", "give one of a space for images, as conv_chain"
            )
        whole = _only_layers(graph)
        bad = [each.weights for each in whole.nodes if set(each.weights) & {"~", "+"}]
        if bad:
            raise UserInputError(f"the base network has a layer {bad[0]!r}: ~ and + are taken")
        return cls(whole, {n.weights: _sizes(whole, n) for n in whole.nodes if n.weights})

    @cached_property
    def channels(self) -> Channels:
        """The channel axes of the graph."""
        return Channels(self.graph)

    def scalable(self) -> dict[str, int]:
        """Return the layers whose channels may change, and how many these are.

        Where several layers make one channel axis, as before a sum, the first stands for all.
        """
        seen: set[int] = set()
        found: dict[str, int] = {}
        for index, node in enumerate(self.graph.nodes):
            (part, *more) = self.channels.of(index)
            if more or part in seen or not _is_layer(node) or self.channels.is_fixed(part):
                continue
            seen.add(part)
            found[plain_name(node.weights)] = self.channels.size(part)
        return found

    def scaled(self, layer: str, channels: int) -> Transformed:
        """Return the network with another number of channels behind a layer."""
        (part,) = self.channels.of(self._index(layer))
        draft = _Draft(self)
        for index in range(1, len(self.graph.nodes)):
            draft.copy(index, {part: channels})
        return draft.finish()

    def insertable(self) -> dict[str, tuple[Kind, ...]]:
        """Return the layers at which one may be inserted, and the kinds that fit there."""
        return {
            plain_name(node.weights): KINDS if self._site(index)[2] else _LINEAR_KINDS
            for index, node in enumerate(self.graph.nodes)
            if _is_layer(node) and self._is_alone(node)
        }

    def inserted(self, layer: str, kind: Kind, step: int) -> Transformed:
        """Return the network with one more layer, of equal channels before and behind it.

        The place is chosen so that there is a layer that changes nothing: ReLU may stand where a
        value is rectified already, or by all that read it. It is looked for behind the layer
        (behind its batch norm and activation, if these are ops of their own), then before it; if
        neither will do, the new layer is behind it and has no ReLU.

        Args:
            layer: At which layer.
            kind: Of `insertable`.
            step: Makes the name unique.
        """
        read, only_reader, rectified = self._site(self._index(layer))
        op = _new_layer(kind, self.channels.total(read), rectified=rectified)
        draft = _Draft(self)
        new: Value | None = None
        for index in range(1, len(self.graph.nodes)):
            if new is not None and only_reader in (None, index):
                draft.copy(index, {}, {read: new})
            else:
                draft.copy(index)
            if index == read:
                new = draft.add_inserted(read, op, f"{layer}+{step}{kind}")
        return draft.finish()

    def removable(self) -> tuple[str, ...]:
        """Return the layers of the base network that make the shape they read."""
        return tuple(
            plain_name(node.weights)
            for node in self.graph.nodes
            if _is_layer(node)
            and self._is_alone(node)
            and not is_inserted(node.weights)
            and node.inputs[0] != 0
            and self.graph.nodes[node.inputs[0]].shape == node.shape
        )

    def removed(self, layer: str) -> Transformed:
        """Return the network without a layer, and without the batch norm that only it feeds.

        What read the layer's output reads its input. A sum of a value with itself, which is what
        is left of a residual block with one layer, becomes the value.
        """
        first = self._index(layer)
        last = self._behind_norm(first)
        draft = _Draft(self)
        for index in range(1, len(self.graph.nodes)):
            is_left = self.graph.nodes[index].op.kind == "sum" and draft.reads_one_value(index)
            if is_left or index in (first, last):
                draft.skip(index)
            else:
                draft.copy(index)
        return draft.finish()

    def _index(self, layer: str) -> int:
        for index, node in enumerate(self.graph.nodes):
            if _is_layer(node) and plain_name(node.weights) == layer:
                return index
        raise HwnasError(f"the network has no layer {layer!r}")

    def _is_alone(self, node: Node) -> bool:
        return sum(each.weights == node.weights for each in self.graph.nodes) == 1

    @cached_property
    def _readers(self) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in self.graph.nodes]
        for index, node in enumerate(self.graph.nodes):
            for i in node.inputs:
                found[i].append(index)
        return found

    def _only_reader(self, index: int) -> Op | None:
        readers = self._readers[index]
        if len(readers) != 1 or index in self.graph.outputs:
            return None
        return self.graph.nodes[readers[0]].op

    def _behind_norm(self, index: int) -> int:
        if isinstance(self._only_reader(index), BatchNorm):
            return self._readers[index][0]
        return index

    def _site(self, index: int) -> tuple[int, int | None, bool]:
        """Return the value that a new layer reads, its reader (None: all), and if it has a ReLU."""
        behind = self._behind_norm(index)
        if isinstance(self._only_reader(behind), Relu | Relu6):
            behind = self._readers[behind][0]
        if self._is_rectified(behind):
            return behind, None, True
        node = self.graph.nodes[index]
        (before,) = node.inputs
        takes_relu = _starts_with_relu(node.op) or _ends_with_relu(self.graph.nodes[before].op)
        if takes_relu and before != 0 and len(self.channels.of(before)) == 1:
            return before, index, True
        return behind, None, False

    def _is_rectified(self, index: int) -> bool:
        """Tell whether a ReLU behind a node would change nothing of the network's outputs."""
        if _ends_with_relu(self.graph.nodes[index].op):
            return True
        if index in self.graph.outputs:
            return False
        return all(_starts_with_relu(self.graph.nodes[i].op) for i in self._readers[index])


class _Draft:
    """Copies a graph node by node, with changes."""

    def __init__(self, source: Transformed) -> None:
        self.source = source
        first = source.graph.nodes[0]
        assert isinstance(first.op, Input)
        self.g = GraphBuilder(first.shape, first.op.dtype)
        self.values = [self.g.input]

    def copy(
        self,
        index: int,
        sizes: Mapping[int, int] | None = None,
        instead: Mapping[int, Value] | None = None,
    ) -> None:
        """Add a node, some parts of the axes having other sizes, some inputs being others."""
        node, channels = self.source.graph.nodes[index], self.source.channels
        op = node.op
        if sizes and set(sizes) & set(channels.of(index)):
            op = _resized(node, channels.total(index, sizes))
        inputs = [(instead or {}).get(i, self.values[i]) for i in node.inputs]
        self.values.append(self.g.add(op, inputs, self._name(node.weights, inputs, op)))

    def skip(self, index: int) -> None:
        """Leave a node out: its input stands for its output."""
        self.values.append(self.values[self.source.graph.nodes[index].inputs[0]])

    def reads_one_value(self, index: int) -> bool:
        """Tell whether all inputs of a node have become one."""
        return len({self.values[i] for i in self.source.graph.nodes[index].inputs}) == 1

    def add_inserted(self, read: int, op: Op, name: str) -> Value:
        """Add a node that is not in the source."""
        inputs = [self.values[read]]
        return self.g.add(op, inputs, self._name(name, inputs, op))

    def finish(self) -> Transformed:
        """Return the network."""
        graph = self.g.finish(*(self.values[i] for i in self.source.graph.outputs))
        return Transformed(graph, self.source.original)

    def _name(self, weights: str, inputs: Sequence[Value], op: Op) -> str:
        if not weights:
            return ""
        name = plain_name(weights)
        made = _made(op)
        read = inputs[0].shape[0]
        sizes = (read, read if made is None else made)
        if self.source.original.get(name) == sizes:
            return name
        return f"{name}~{sizes[0]}to{sizes[1]}"


def _only_layers(graph: Graph) -> Graph:
    """Return a graph in primitives and the composites that may stay whole."""
    first = graph.nodes[0]
    assert isinstance(first.op, Input)
    g = GraphBuilder(first.shape, first.op.dtype)
    values = [g.input]
    for node in graph.nodes[1:]:
        inputs = [values[i] for i in node.inputs]
        if not isinstance(node.op, Composite) or node.op.kind in WHOLE:
            values.append(g.add(node.op, inputs, node.weights))
            continue
        inner, result = graph.expansion_of(node)
        found = list(inputs)
        for each in inner[len(inputs) :]:
            name = f"{node.weights}/{each.weights}" if each.weights else ""
            found.append(g.add(each.op, [found[i] for i in each.inputs], name))
        values.append(found[result])
    return g.finish(*(values[i] for i in graph.outputs))


def _is_layer(node: Node) -> bool:
    """Tell whether a node is what can be scaled and removed: a convolution over all channels."""
    return makes_channels(node.op) and not isinstance(node.op, Linear)


def _made(op: Op) -> int | None:
    """Return the channels or features that an op is told to make; None: as many as it reads."""
    if isinstance(op, Linear):
        return op.features
    if isinstance(op, Classifier):
        return op.classes
    made = getattr(op, "channels", None)
    return made if isinstance(made, int) else None


def _sizes(graph: Graph, node: Node) -> tuple[int, int]:
    read = graph.nodes[node.inputs[0]].shape if node.inputs else node.shape
    made = _made(node.op)
    return read[0], read[0] if made is None else made


def _resized(node: Node, channels: int) -> Op:
    if is_depthwise(node):
        return dataclasses.replace(node.op, channels=channels, groups=channels)  # type: ignore[call-arg]
    if isinstance(node.op, Linear):
        return dataclasses.replace(node.op, features=channels)
    if isinstance(node.op, Conv | ConvBn | SepConv):
        return dataclasses.replace(node.op, channels=channels)
    return node.op


def _new_layer(kind: Kind, channels: int, *, rectified: bool) -> Op:
    if kind == "sep3":
        return SepConv(channels, kernel=3, stages=1)
    kernel = 3 if kind == "conv3" else 1
    return ConvBn(channels, kernel=kernel, relu="after" if rectified else "none")


def _starts_with_relu(op: Op) -> bool:
    if isinstance(op, Classifier):
        return op.relu
    return isinstance(op, Relu | Relu6 | SepConv) or (
        isinstance(op, ConvBn) and op.relu == "before"
    )


def _ends_with_relu(op: Op) -> bool:
    return isinstance(op, Relu | Relu6) or (isinstance(op, ConvBn) and op.relu == "after")
