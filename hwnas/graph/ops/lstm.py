"""The LSTM, over all steps of a sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


@register("lstm")
@dataclass(frozen=True)
class Lstm(Primitive):
    """One layer of an LSTM (Hochreiter & Schmidhuber 1997, with forget gates), as in PyTorch.

    A second input `(2, H)` is the first state, h and c, which are zero without it.

    Attributes:
        hidden: H, the size of the state and of the output.
        weight_dropout: Probability of dropping an element of the state's matrix, once a forward
            pass (Merity et al. 2018).
        with_state: Whether h and c after the last step follow as two more rows of the output.
        bound: Weights start uniformly in ± this; None: in ± 1 / √H, as PyTorch's do.
    """

    hidden: int
    weight_dropout: float = 0.0
    with_state: bool = False
    bound: float | None = None

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (T, H), or (T + 2, H) with the state.

        Raises:
            ShapeError: The input is no sequence of vectors, or the state is not of that size.
        """
        if not inputs or len(inputs[0]) != 2:
            raise ShapeError(f"lstm expects an input of shape (T, E), got {inputs}")
        if len(inputs) > 2 or (len(inputs) == 2 and inputs[1] != (2, self.hidden)):
            raise ShapeError(f"lstm expects a state of shape {(2, self.hidden)}, got {inputs}")
        return (inputs[0][0] + 2 * self.with_state, self.hidden)

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `input` [4 H, E], `hidden` [4 H, H] and `bias` [4 H]; gates i, f, g, o."""
        rows, width = 4 * self.hidden, inputs[0][1]
        bound = 1 / math.sqrt(self.hidden) if self.bound is None else self.bound
        return {
            "input": matrix_spec((rows, width), width, bound),
            "hidden": matrix_spec((rows, self.hidden), self.hidden, bound),
            "bias": WeightSpec((rows,), "zeros"),
        }

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, T, H]`, or `[N, T + 2, H]` with the state."""
        import torch
        from torch.nn.functional import dropout

        x = inputs[0]
        if len(inputs) == 2:
            start = [each.contiguous() for each in inputs[1].transpose(0, 1).split(1)]
        else:
            start = [x.new_zeros((1, x.shape[0], self.hidden))] * 2
        hidden = dropout(weights["hidden"], self.weight_dropout, training=mode.dropout)
        bias = weights["bias"]
        parameters = [weights["input"], hidden, bias, torch.zeros_like(bias)]
        output, h, c = torch.lstm(x, start, parameters, True, 1, 0.0, mode.dropout, False, True)
        if not self.with_state:
            return output
        return torch.cat([output, h.transpose(0, 1), c.transpose(0, 1)], dim=1)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write an LSTM; its gates are in the order i, o, f, g."""
        import numpy as np

        def ordered(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            i, f, g, o = np.split(writer.array(name), 4)
            return np.concatenate([i, o, f, g])[None].astype(np.float32)

        bias = np.concatenate([ordered("bias"), np.zeros_like(ordered("bias"))], axis=1)
        operands = [
            writer.emit("Transpose", [inputs[0]], perm=[1, 0, 2]),
            writer.constant("W", ordered("input")),
            writer.constant("R", ordered("hidden")),
            writer.constant("B", bias),
        ]
        if len(inputs) == 2:
            rows = writer.emit("Transpose", [inputs[1]], perm=[1, 0, 2])
            ends = [writer.constant(f"end{i}", np.array([i])) for i in range(3)]
            zero = writer.constant("zero", np.array([0]))
            h, c = (writer.emit("Slice", [rows, ends[i], ends[i + 1], zero]) for i in range(2))
            operands += ["", h, c]
        found = writer.emit_many("LSTM", operands, 3, hidden_size=self.hidden)
        directions = writer.constant("directions", np.array([1]))
        found[0] = writer.emit("Squeeze", [found[0], directions])
        if self.with_state:
            found = [writer.emit("Concat", found, axis=0)]
        return writer.emit("Transpose", [found[0]], perm=[1, 0, 2])

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Return those of the matrix products, for all steps."""
        steps, width = inputs[0]
        return steps * 4 * self.hidden * (width + self.hidden)
