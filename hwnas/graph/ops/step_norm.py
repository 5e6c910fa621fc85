"""Batch normalisation of each step of a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, WeightSpec, register

if TYPE_CHECKING:
    from torch import Tensor


@register("step_norm")
@dataclass(frozen=True)
class StepNorm(Primitive):
    """Normalise each feature over the batch, each step of the sequence by itself.

    What ENAS adds to the average of a cell's leaves during the search. Statistics over several
    steps would tell a step about later ones. Running statistics are shared by the steps.

    Attributes:
        epsilon: Added to the variance.
    """

    epsilon: float = 1e-5

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape.

        Raises:
            ShapeError: The input is no sequence of vectors.
        """
        if len(inputs) != 1 or len(inputs[0]) != 2:
            raise ShapeError(f"step_norm expects one input of shape (T, F), got {inputs}")
        return inputs[0]

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return scale, shift and the running statistics, each `[F]`."""
        shape = (inputs[0][1],)
        return {
            "scale": WeightSpec(shape, "ones"),
            "shift": WeightSpec(shape, "zeros"),
            "mean": WeightSpec(shape, "zeros", is_trainable=False),
            "variance": WeightSpec(shape, "ones", is_trainable=False),
        }

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, T, F]`.

        Raises:
            ValueError: Batch statistics of a single sequence: one value has no variance.
        """
        import torch

        x = inputs[0]
        if not mode.batch_statistics:
            mean, variance = weights["mean"], weights["variance"]
        elif len(x) < 2:
            raise ValueError("Expected more than 1 sequence when training, got a batch of 1")
        else:
            variance, mean = torch.var_mean(x, 0, correction=0, keepdim=True)
            if mode.momentum > 0:
                unbiased = len(x) / (len(x) - 1)
                with torch.no_grad():
                    weights["mean"].lerp_(mean.mean((0, 1)), mode.momentum)
                    weights["variance"].lerp_(variance.mean((0, 1)) * unbiased, mode.momentum)
        gain = weights["scale"] * torch.rsqrt(variance + self.epsilon)
        return (x - mean) * gain + weights["shift"]

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a BatchNormalization of all steps as rows."""
        import numpy as np

        size = writer.input_shapes[0]
        names = [writer.weight(each) for each in ("scale", "shift", "mean", "variance")]
        flat = writer.constant("flat", np.array([-1, size[1]]))
        back = writer.constant("back", np.array([-1, *size]))
        rows = writer.emit("Reshape", [inputs[0], flat])
        done = writer.emit("BatchNormalization", [rows, *names], epsilon=self.epsilon)
        return writer.emit("Reshape", [done, back])
