"""Which channel axes of a graph are one: what must change together when a layer gets wider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from hwnas.graph.graph import Graph, Node
from hwnas.graph.op import Op
from hwnas.graph.ops.conv import Conv
from hwnas.graph.ops.conv_bn import ConvBn
from hwnas.graph.ops.layout import ZeroPad
from hwnas.graph.ops.linear import Linear
from hwnas.graph.ops.sep_conv import SepConv

#: Parts of a channel axis, in order: more than one behind a concatenation.
Axis: TypeAlias = tuple[int, ...]

#: Composites that a transformation leaves whole; all others are expanded first.
WHOLE = frozenset({"conv_bn", "sep_conv", "classifier"})
_ACTIVATIONS = frozenset(
    {"relu", "relu6", "sigmoid", "tanh", "swish", "hard_sigmoid", "hard_swish", "gelu"}
    | {"leaky_relu", "elu"}
)
_CHANNEL_BY_CHANNEL = _ACTIVATIONS | {
    *("batch_norm", "max_pool", "avg_pool", "global_avg_pool", "dropout", "drop_path")
}


def is_depthwise(node: Node) -> bool:
    """Tell whether a node filters each channel for itself."""
    op = node.op
    return isinstance(op, Conv) and op.groups == op.channels and op.groups > 1


def makes_channels(op: Op) -> bool:
    """Tell whether each output channel of an op sums over all channels of its input."""
    if isinstance(op, Conv):
        return op.groups == 1
    return isinstance(op, ConvBn | SepConv | Linear)


def _pads_images(op: Op) -> bool:
    return isinstance(op, ZeroPad) and not (op.before[0] or op.behind[0])


class Channels:
    """The channel axes of a graph: for each node the parts that its axis consists of.

    Parts that must have the same size are the same part: those of the two sides of a sum, before
    and behind a depthwise convolution, of two layers that share their weights. A part is *fixed*
    where its size has another meaning (the image's channels, the classes), or where an op that is
    not known here reads or makes it.

    Args:
        graph: A graph of primitives and of the composites in `WHOLE`.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._parent: list[int] = []
        self._sizes: list[int] = []
        self._fixed: list[bool] = []
        self._axes: list[Axis] = []
        known: dict[str, tuple[Axis, Axis]] = {}
        for node in graph.nodes:
            axis = self._axis(node)
            self._axes.append(axis)
            if node.weights and node.inputs:
                read = self._axes[node.inputs[0]]
                before, after = known.setdefault(node.weights, (read, axis))
                self._join(before, read)
                self._join(after, axis)
        for index in graph.outputs:
            self._fix(self._axes[index])

    def of(self, index: int) -> Axis:
        """Return the parts of the channel axis of a node's output."""
        return tuple(self._root(part) for part in self._axes[index])

    def size(self, part: int) -> int:
        """Return the number of channels of a part."""
        return self._sizes[self._root(part)]

    def is_fixed(self, part: int) -> bool:
        """Tell whether the size of a part may not change."""
        return self._fixed[self._root(part)]

    def total(self, index: int, sizes: Mapping[int, int] | None = None) -> int:
        """Return the channels of a node's output, some parts having other sizes."""
        return sum((sizes or {}).get(part, self.size(part)) for part in self.of(index))

    def _axis(self, node: Node) -> Axis:
        read = [self._axes[i] for i in node.inputs]
        kind = node.op.kind
        if makes_channels(node.op) and len(self._shape_read(node)) in (1, 3):
            return self._new(node.shape[0])
        if kind == "classifier":
            return self._new(node.shape[0], fixed=True)
        if is_depthwise(node) or kind in _CHANNEL_BY_CHANNEL or _pads_images(node.op):
            return read[0]
        if kind in ("sum", "multiply"):
            self._join(read[0], read[1])
            return read[0]
        if kind == "concat":
            return tuple(part for axis in read for part in axis)
        for axis in read:
            self._fix(axis)
        return self._new(node.shape[0], fixed=True)

    def _shape_read(self, node: Node) -> tuple[int, ...]:
        return self.graph.nodes[node.inputs[0]].shape

    def _new(self, size: int, *, fixed: bool = False) -> Axis:
        self._parent.append(len(self._parent))
        self._sizes.append(size)
        self._fixed.append(fixed)
        return (len(self._parent) - 1,)

    def _root(self, part: int) -> int:
        while self._parent[part] != part:
            part = self._parent[part]
        return part

    def _fix(self, axis: Axis) -> None:
        for part in axis:
            self._fixed[self._root(part)] = True

    def _join(self, first: Axis, second: Axis) -> None:
        """Make two axes one; where their parts do not correspond, nothing may change."""
        if [self.size(part) for part in first] != [self.size(part) for part in second]:
            self._fix(first)
            self._fix(second)
            return
        for one, other in zip(first, second, strict=True):
            root, leaf = sorted((self._root(one), self._root(other)))
            self._parent[leaf] = root
            self._fixed[root] = self._fixed[root] or self._fixed[leaf]
