"""The recurrent cell of the first neural architecture search, over all steps of a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, WeightSpec, register

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

COMBINATIONS = ("add", "elem_mult")
ACTIVATIONS = ("identity", "tanh", "sigmoid", "relu")
_ONNX = {
    "add": "Add", "elem_mult": "Mul", "tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu",
}  # fmt: skip

#: The cell that Zoph & Le found, all but its size: TensorFlow's `NASCell`, node by node.
NAS_CELL: Mapping[str, Any] = {
    "combine": (
        "add", "add", "add", "elem_mult", "add", "add", "add", "add",
        "elem_mult", "add", "elem_mult", "add", "elem_mult", "add", "elem_mult",
    ),
    "activations": (
        "sigmoid", "relu", "sigmoid", "relu", "tanh", "sigmoid", "tanh", "sigmoid",
        "tanh", "tanh", "tanh", "sigmoid", "identity", "tanh", "tanh",
    ),
    "inject_at": 8,
    "inject_combine": "add",
    "inject_activation": "tanh",
    "cell_at": 12,
}  # fmt: skip

V = TypeVar("V")


@register("tree_cell")
@dataclass(frozen=True)
class TreeCell(Primitive):
    """A tree that maps the input x, the state h and the memory c to the next h and c.

    Source: Zoph & Le 2017, section 3.4; the cell that they found is published as `NASCell` in
    TensorFlow, which agrees with what follows. With B leaves, node n combines two values by
    `combine[n]`, and applies `activations[n]`::

        n < B:       W_n x_t  and  U_n h_{t-1}
        n ≥ B:       nodes 2 (n - B) and 2 (n - B) + 1
        then, for n = inject_at:  a_n ← inject_activation(a_n inject_combine c_{t-1})

    The last node is the new h; the new c is node `cell_at` before its activation.

    Weights start from N(0, 2 / (2 B · size)), as if all leaves were added: products of larger
    values would overflow after a few steps.

    Attributes:
        hidden: H, the size of h and of c.
        combine: How each node combines: ``add`` or ``elem_mult``; 2 B - 1 of them.
        activations: ``identity``, ``tanh``, ``sigmoid`` or ``relu`` of each node.
        inject_at: The node that c is combined with.
        inject_combine: How.
        inject_activation: What follows.
        cell_at: The node that becomes c.
    """

    hidden: int
    combine: tuple[str, ...]
    activations: tuple[str, ...]
    inject_at: int
    inject_combine: str
    inject_activation: str
    cell_at: int

    @property
    def leaves(self) -> int:
        """B, the number of leaves."""
        return (len(self.combine) + 1) // 2

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (T, 2 H): h and c after each step.

        Raises:
            ShapeError: The inputs are not a sequence of vectors and perhaps a state of size 2 H,
                or the cell is not valid.
        """
        if len(inputs) not in (1, 2) or len(inputs[0]) != 2 or inputs[0][0] < 1:
            raise ShapeError(f"tree_cell expects an input of shape (T, E), got {inputs}")
        if inputs[1:] not in ([], (), [(2 * self.hidden,)], ((2 * self.hidden,),)):
            raise ShapeError(f"tree_cell: a state of {2 * self.hidden} is h and c, got {inputs[1]}")
        nodes = len(self.combine)
        if self.leaves & (self.leaves - 1) or nodes != 2 * self.leaves - 1:
            raise ShapeError(f"tree_cell: {nodes} nodes are no full tree: 2 B - 1, B a power of 2")
        if len(self.activations) != nodes:
            raise ShapeError(f"tree_cell: {len(self.activations)} activations for {nodes} nodes")
        if not {*self.combine, self.inject_combine} <= set(COMBINATIONS):
            raise ShapeError(f"tree_cell: combinations are {', '.join(COMBINATIONS)}")
        if not {*self.activations, self.inject_activation} <= set(ACTIVATIONS):
            raise ShapeError(f"tree_cell: activations are {', '.join(ACTIVATIONS)}")
        if not (0 <= self.inject_at < nodes and 0 <= self.cell_at < nodes):
            raise ShapeError(f"tree_cell: inject_at and cell_at must be nodes, 0 to {nodes - 1}")
        return (inputs[0][0], 2 * self.hidden)

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `input` [B H, E] and `hidden` [B H, H]: H rows for each leaf."""
        rows, spread = self.leaves * self.hidden, 2 * self.leaves
        return {
            name: WeightSpec((rows, size), "he_normal", fan_in=spread * size)
            for name, size in (("input", inputs[0][1]), ("hidden", self.hidden))
        }

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, T, 2 H]`."""
        import torch
        from torch.nn.functional import linear

        calls: dict[str, Callable[..., Tensor]] = {
            "add": torch.add,
            "elem_mult": torch.mul,
            "identity": lambda value: value,
            "tanh": torch.tanh,
            "sigmoid": torch.sigmoid,
            "relu": torch.relu,
        }
        x = linear(inputs[0], weights["input"])
        empty = x.new_zeros((x.shape[0], 2 * self.hidden))
        h, c = (inputs[1] if len(inputs) > 1 else empty).chunk(2, dim=1)
        states = []
        for t in range(x.shape[1]):
            own = x[:, t].chunk(self.leaves, dim=1)
            recurrent = linear(h, weights["hidden"]).chunk(self.leaves, dim=1)
            h, c = self._step(own, recurrent, c, lambda name, *values: calls[name](*values))
            states.append(torch.cat([h, c], dim=1))
        return torch.stack(states, dim=1)

    def _step(
        self, own: Sequence[V], recurrent: Sequence[V], memory: V, call: Callable[..., V]
    ) -> tuple[V, V]:
        """Return the new h and c of one step.

        Args:
            own: W_n x of each leaf.
            recurrent: U_n h of each leaf.
            memory: c.
            call: Applies a combination or an activation by its name.
        """
        values: list[V] = []
        cell = memory
        for node, (combine, activation) in enumerate(
            zip(self.combine, self.activations, strict=True)
        ):
            if node < self.leaves:
                pair = own[node], recurrent[node]
            else:
                first = 2 * (node - self.leaves)
                pair = values[first], values[first + 1]
            value = call(combine, *pair)
            if node == self.cell_at:
                cell = value
            value = call(activation, value)
            if node == self.inject_at:
                value = call(self.inject_activation, call(self.inject_combine, value, memory))
            values.append(value)
        return values[-1], cell

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write the tree once for each step, with standard ops."""
        import numpy as np

        (steps, width), size = writer.input_shapes[0], self.hidden
        axis = writer.constant("axis", np.array([1], np.int64))
        marks = range(max(steps, self.leaves) + 1)
        at = [writer.constant(f"at{each}", np.array([each])) for each in marks]
        ends = [writer.constant(f"end{each}", np.array([each * size])) for each in marks]
        row = writer.constant("row", np.array([-1, width]))

        def part(value: str, index: int) -> str:
            return writer.emit("Slice", [value, ends[index], ends[index + 1], axis])

        def call(name: str, *values: str) -> str:
            return values[0] if name == "identity" else writer.emit(_ONNX[name], values)

        state = inputs[1] if len(inputs) > 1 else self._zeros(writer, inputs[0])
        h, c = part(state, 0), part(state, 1)
        states = []
        for t in range(steps):
            x = writer.emit("Slice", [inputs[0], at[t], at[t + 1], axis])
            x = writer.emit("Reshape", [x, row])
            own = writer.emit("Gemm", [x, writer.weight("input")], transB=1)
            recurrent = writer.emit("Gemm", [h, writer.weight("hidden")], transB=1)
            h, c = self._step(
                [part(own, leaf) for leaf in range(self.leaves)],
                [part(recurrent, leaf) for leaf in range(self.leaves)],
                c,
                call,
            )
            both = writer.emit("Concat", [h, c], axis=1)
            states.append(writer.emit("Unsqueeze", [both, axis]))
        return writer.emit("Concat", states, axis=1)

    def _zeros(self, writer: OnnxNodeWriter, x: str) -> str:
        import numpy as np

        batch = writer.emit("Shape", [x], start=0, end=1)
        size = writer.constant("size", np.array([2 * self.hidden], np.int64))
        return writer.emit("ConstantOfShape", [writer.emit("Concat", [batch, size], axis=0)])

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Return those of the matrix products, for all steps."""
        return output[0] * self.leaves * self.hidden * (inputs[0][1] + self.hidden)
