"""The recurrent cell of ENAS, over all steps of a sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, WeightSpec, register

if TYPE_CHECKING:
    from torch import Tensor

#: ONNX's names of the activations 0 to 3; the identity has none.
_ONNX = ("Tanh", "Relu", "", "Sigmoid")


@register("rnn_cell")
@dataclass(frozen=True)
class RnnCell(Primitive):
    """One sampled recurrent cell; its equations are in `hwnas.kernels.rnn_cell`.

    The first state is zero. Weights belong to edges, so cells that were sampled from one space
    share those of the edges that they have in common. They are drawn from N(0, 2 / fan_in), where
    ENAS draws uniformly from ±0.025: the toolkit knows one initialisation for matrices.

    Attributes:
        hidden: H, the size of the state and of the output.
        previous: Which node feeds nodes 1, 2, …
        activations: Of nodes 0, 1, …: 0 tanh, 1 ReLU, 2 identity, 3 sigmoid.
        carry_last: The next step sees the last node's state instead of the leaves' average.
    """

    hidden: int
    previous: tuple[int, ...]
    activations: tuple[int, ...]
    carry_last: bool = False

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (T, H).

        Raises:
            ShapeError: The input is no sequence of vectors, or the cell is not valid.
        """
        if len(inputs) != 1 or len(inputs[0]) != 2 or inputs[0][0] < 1:
            raise ShapeError(f"rnn_cell expects one input of shape (T, E), got {inputs}")
        if len(self.activations) != len(self.previous) + 1:
            raise ShapeError(
                f"rnn_cell: {len(self.activations)} activations for {len(self.previous) + 1} nodes"
            )
        for node, source in self._edges():
            if not 0 <= source < node:
                raise ShapeError(f"rnn_cell: node {node} reads node {source}")
        if not all(0 <= each < len(_ONNX) for each in self.activations):
            raise ShapeError(f"rnn_cell: activations {self.activations} are not all of 0 to 3")
        return (inputs[0][0], self.hidden)

    def _edges(self) -> list[tuple[int, int]]:
        """Each node but the first, and the one that it reads."""
        return list(enumerate(self.previous, start=1))

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `input` [2 H, E], and `hidden` and `edge{i}_{j}` [2 H, H]."""
        rows, width = 2 * self.hidden, inputs[0][1]
        square = WeightSpec((rows, self.hidden), "he_normal", fan_in=self.hidden)
        return {
            "input": WeightSpec((rows, width), "he_normal", fan_in=width),
            "hidden": square,
            **{f"edge{source}_{node}": square for node, source in self._edges()},
        }

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, T, H]`."""
        from hwnas.kernels.rnn_cell import rnn_cell

        x = inputs[0].transpose(0, 1)
        output, _ = rnn_cell(
            x,
            x.new_zeros((x.shape[1], self.hidden)),
            weights["input"],
            weights["hidden"],
            {(i, j): weights[f"edge{i}_{j}"] for j, i in self._edges()},
            [(self.previous, self.activations)],
            carry_last=self.carry_last,
        )
        return output.transpose(0, 1)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write the cell once for each step, with standard ops."""
        import numpy as np

        (steps, width), size = writer.input_shapes[0], self.hidden
        axis = writer.constant("axis", np.array([1], np.int64))
        one = writer.constant("one", np.array(1, np.float32))
        ends = [writer.constant(f"end{end}", np.array([end * size])) for end in range(3)]
        row = writer.constant("row", np.array([-1, width]))
        steps_at = [writer.constant(f"step{t}", np.array([t])) for t in range(steps + 1)]
        count = writer.constant("leaves", np.array(len(self._leaves()), np.float32))

        def highway(pre: str, before: str | None, activation: int) -> str:
            gate, value = (
                writer.emit("Slice", [pre, ends[half], ends[half + 1], axis]) for half in range(2)
            )
            gate = writer.emit("Sigmoid", [gate])
            value = writer.emit(_ONNX[activation], [value]) if _ONNX[activation] else value
            new = writer.emit("Mul", [gate, value])
            if before is None:
                return new
            kept = writer.emit("Mul", [writer.emit("Sub", [one, gate]), before])
            return writer.emit("Add", [new, kept])

        outputs = []
        state: str | None = None  # zero
        for t in range(steps):
            x = writer.emit("Slice", [inputs[0], steps_at[t], steps_at[t + 1], axis])
            x = writer.emit("Reshape", [x, row])
            pre = writer.emit("Gemm", [x, writer.weight("input")], transB=1)
            if state is not None:
                pre = writer.emit("Gemm", [state, writer.weight("hidden"), pre], transB=1)
            nodes = [highway(pre, state, self.activations[0])]
            for node, source in self._edges():
                name = writer.weight(f"edge{source}_{node}")
                pre = writer.emit("Gemm", [nodes[source], name], transB=1)
                nodes.append(highway(pre, nodes[source], self.activations[node]))
            total = writer.emit("Sum", [nodes[leaf] for leaf in self._leaves()])
            mean = writer.emit("Div", [total, count])
            outputs.append(writer.emit("Unsqueeze", [mean, axis]))
            state = nodes[-1] if self.carry_last else mean
        return writer.emit("Concat", outputs, axis=1)

    def _leaves(self) -> list[int]:
        return [node for node in range(len(self.activations)) if node not in self.previous]

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Return those of the matrix products, for all steps."""
        return math.prod(output) * 2 * (inputs[0][1] + self.hidden * len(self.activations))
