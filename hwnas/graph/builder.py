"""Builds graphs: one method for each registered op."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hwnas.errors import ShapeError, UserInputError, nearest
from hwnas.graph.graph import Graph, Node, expansion
from hwnas.graph.op import OPS, Composite, Op, Primitive, Shape


@dataclass(frozen=True, slots=True)
class Value:
    """The output of a node while a graph is being built.

    Attributes:
        index: The node's index.
        shape: Its shape, (C, H, W) or (F,).
    """

    index: int
    shape: Shape


class GraphBuilder:
    """Adds ops one after the other; each registered op is a method.

    ``g.conv(x, channels=32, kernel=3, weights="stem")`` adds the op called ``conv``: positional
    arguments are its inputs, `weights` names its weights, all else are its attributes.

    Args:
        input_shape: (C, H, W) of the network's input, or (T,) tokens; the batch is free.
        dtype: Type of the input: ``float32``, or ``int64`` for tokens.
    """

    def __init__(self, input_shape: Shape, dtype: str = "float32") -> None:
        self.nodes: list[Node] = []
        self.inputs: tuple[Value, ...] = ()
        self._add_inputs([input_shape], dtype)

    @classmethod
    def for_expansion(cls, shapes: Sequence[Shape]) -> GraphBuilder:
        """Return a builder whose inputs are those of a composite op."""
        builder = cls.__new__(cls)
        builder.nodes = []
        builder.inputs = ()
        builder._add_inputs(shapes)
        return builder

    @property
    def input(self) -> Value:
        """The network's input."""
        return self.inputs[0]

    def __getattr__(self, kind: str) -> Callable[..., Value]:
        """Return the method that adds the op called `kind`.

        Raises:
            AttributeError: No op has that name; the message lists the nearest ones.
        """
        if kind.startswith("_"):
            raise AttributeError(kind)
        try:
            op_class = OPS.get(kind)
        except UserInputError as error:
            raise AttributeError(f"{error.message}. {nearest(kind, OPS.names())}") from None

        def add(*inputs: Value, weights: str = "", **attributes: Any) -> Value:
            return self.add(_make(op_class, attributes), inputs, weights)

        return add

    def add(self, op: Op, inputs: Sequence[Value], weights: str = "") -> Value:
        """Add an op and return its output.

        Raises:
            ShapeError: The inputs do not fit, or the op has weights but no name for them.
        """
        shapes = tuple(value.shape for value in inputs)
        if isinstance(op, Composite):
            inner, result = expansion(op, shapes)
            if result < len(inputs):
                return inputs[result]
            shape = inner[result].shape
            has_weights = any(node.weights for node in inner)
        else:
            assert isinstance(op, Primitive)
            shape = op.shape(shapes)
            has_weights = bool(op.weights(shapes))
        if has_weights and not weights:
            raise ShapeError(f"{op.kind} has weights: name them with weights=…")
        if min(shape) < 1:
            raise ShapeError(
                f"{op.kind} would shrink {shapes} to {shape}",
                "use a larger input or fewer reductions",
            )
        indices = tuple(value.index for value in inputs)
        self.nodes.append(Node(op, indices, weights if has_weights else "", shape))
        return Value(len(self.nodes) - 1, shape)

    def finish(self, *outputs: Value) -> Graph:
        """Return the graph with the given outputs, the logits first.

        Raises:
            ShapeError: Two ops name the same weight but need different shapes.
        """
        graph = Graph(tuple(self.nodes), tuple(value.index for value in outputs))
        graph.weight_specs()  # refuses a name that is used with two shapes
        return graph

    def _add_inputs(self, shapes: Sequence[Shape], dtype: str = "float32") -> None:
        input_op = _make(OPS.get("input"), {"dtype": dtype})
        for shape in shapes:
            self.nodes.append(Node(input_op, (), "", tuple(shape)))
        self.inputs = tuple(Value(i, tuple(shape)) for i, shape in enumerate(shapes))


def _make(op_class: type[Op], attributes: dict[str, Any]) -> Op:
    try:
        return op_class(**attributes)
    except TypeError:
        known = [field.name for field in dataclasses.fields(op_class)]
        unknown = sorted(set(attributes) - set(known))
        missing = sorted(
            name
            for name, parameter in inspect.signature(op_class).parameters.items()
            if parameter.default is parameter.empty and name not in attributes
        )
        raise UserInputError(
            f"{op_class.kind}: unknown attributes {unknown}, missing attributes {missing}",
            f"its attributes are {known}",
        ) from None
