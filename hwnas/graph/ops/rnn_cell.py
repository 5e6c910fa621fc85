"""The recurrent cell of ENAS, over all steps of a sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hwnas.errors import ShapeError
from hwnas.graph.op import (
    OnnxNodeWriter,
    Primitive,
    RunMode,
    Shape,
    WeightSpec,
    matrix_spec,
    register,
)

if TYPE_CHECKING:
    from torch import Tensor

_FUNCTIONS = 4


@register("rnn_cell")
@dataclass(frozen=True)
class RnnCell(Primitive):
    """One sampled recurrent cell; its equations are in `hwnas.kernels.rnn_cell`.

    A second input `(1, H)` is the first state, which is zero without it. Weights belong to edges,
    so cells that were sampled from one space share those of the edges that they have in common.

    The fused kernel runs the cell where it can: with the average of the leaves and without
    `node_dropout`. A clipped state is then checked afterwards, and the cell run again step by step
    if a norm was too large; where the state is not the output it is run step by step at once.

    Attributes:
        hidden: H, the size of the state and of the output.
        previous: Which node feeds nodes 1, 2, …
        activations: Of nodes 0, 1, …: 0 tanh, 1 ReLU, 2 identity, 3 sigmoid.
        carry_last: The next step sees the last node's state instead of the output.
        output: ``leaves``: the average of the nodes that no other reads; ``later``: that of all
            nodes but the first (enas_lm).
        weights_per: ``edge``: a matrix serves all activations; ``function``: each activation of an
            edge has its own (enas_lm, and the ENAS authors' code).
        weight_dropout: Probability of dropping an element of the state's matrix, once a forward
            pass (Merity et al. 2018).
        node_dropout: Probability of dropping a feature of all states that matrices read, with one
            mask for all steps and nodes (enas_lm).
        clip: Largest Euclidean norm of a carried state; None: any. As in the PyTorch port, the
            factor that scales a larger one down is a constant to the gradient.
        with_state: Whether the state after the last step follows as one more row of the output.
        bound: Weights start uniformly in ± this; None: from N(0, 2 / fan_in).
        onnx: Whether the exported network repeats the cell for each step or has it in a Scan.
    """

    hidden: int
    previous: tuple[int, ...]
    activations: tuple[int, ...]
    carry_last: bool = False
    output: Literal["leaves", "later"] = "leaves"
    weights_per: Literal["edge", "function"] = "edge"
    weight_dropout: float = 0.0
    node_dropout: float = 0.0
    clip: float | None = None
    with_state: bool = False
    bound: float | None = None
    onnx: Literal["unrolled", "scan"] = "unrolled"

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (T, H), or (T + 1, H) with the state.

        Raises:
            ShapeError: The input is no sequence of vectors, or the cell is not valid.
        """
        if not inputs or len(inputs[0]) != 2 or inputs[0][0] < 1:
            raise ShapeError(f"rnn_cell expects an input of shape (T, E), got {inputs}")
        if len(inputs) > 2 or (len(inputs) == 2 and inputs[1] != (1, self.hidden)):
            raise ShapeError(f"rnn_cell expects a state of shape {(1, self.hidden)}, got {inputs}")
        if len(self.activations) != len(self.previous) + 1:
            raise ShapeError(
                f"rnn_cell: {len(self.activations)} activations for {len(self.previous) + 1} nodes"
            )
        for node, source in enumerate(self.previous, start=1):
            if not 0 <= source < node:
                raise ShapeError(f"rnn_cell: node {node} reads node {source}")
        if not all(0 <= each < _FUNCTIONS for each in self.activations):
            raise ShapeError(f"rnn_cell: activations {self.activations} are not all of 0 to 3")
        return (inputs[0][0] + self.with_state, self.hidden)

    def averaged(self) -> list[int]:
        """Return the nodes whose average is the output."""
        nodes = range(len(self.activations))
        if self.output == "later" and len(nodes) > 1:
            return list(nodes[1:])
        return [node for node in nodes if node not in self.previous]

    def weight_names(self) -> dict[str, str]:
        """Return the names of the first node's weights: those of `input` and `hidden`."""
        suffix = self._suffix(0)
        return {each: each + suffix for each in ("input", "hidden")}

    def edge_names(self) -> dict[tuple[int, int], str]:
        """Return the name of each edge's weight, by (source, node)."""
        return {
            (source, node): f"edge{source}_{node}{self._suffix(node)}"
            for node, source in enumerate(self.previous, start=1)
        }

    def _suffix(self, node: int) -> str:
        return f"_f{self.activations[node]}" if self.weights_per == "function" else ""

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `input` [2 H, E], and `hidden` and `edge{i}_{j}` [2 H, H]."""
        rows, width = 2 * self.hidden, inputs[0][1]
        square = matrix_spec((rows, self.hidden), self.hidden, self.bound)
        first = self.weight_names()
        return {
            first["input"]: matrix_spec((rows, width), width, self.bound),
            first["hidden"]: square,
            **dict.fromkeys(self.edge_names().values(), square),
        }

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, T, H]`, or `[N, T + 1, H]` with the state."""
        import torch
        from torch.nn.functional import dropout

        from hwnas.graph.ops._rnn_steps import run_cell

        x = inputs[0].transpose(0, 1)
        size = (x.shape[1], self.hidden)
        state = inputs[1][:, 0] if len(inputs) == 2 else x.new_zeros(size)
        mask = None
        if mode.dropout and self.node_dropout:
            mask = dropout(x.new_ones(size), self.node_dropout)
        names = self.weight_names()
        hidden = dropout(weights[names["hidden"]], self.weight_dropout, training=mode.dropout)
        edges = {edge: weights[name] for edge, name in self.edge_names().items()}
        output, state = run_cell(self, x, state, weights[names["input"]], hidden, edges, mask)
        if self.with_state:
            output = torch.cat([output, state.unsqueeze(0)])
        return output.transpose(0, 1)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write the cell once for each step, or once in a Scan, with standard ops."""
        from hwnas.graph.ops._rnn_onnx import CellWriter

        cell = CellWriter(self, writer)
        state = inputs[1] if len(inputs) == 2 else None
        if self.onnx == "scan":
            return cell.scan(inputs[0], state)
        return cell.unrolled(inputs[0], state, writer.input_shapes[0][0])

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Return those of the matrix products, for all steps."""
        steps, width = inputs[0]
        return math.prod((steps, 2, self.hidden)) * (width + self.hidden * len(self.activations))
