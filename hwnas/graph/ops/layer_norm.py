"""Layer normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, WeightSpec, register

if TYPE_CHECKING:
    from torch import Tensor


@register("layer_norm")
@dataclass(frozen=True)
class LayerNorm(Primitive):
    """Normalise each example over its last axes (Ba et al. 2016), then scale and shift.

    Attributes:
        axes: How many of the last axes share a mean and a variance.
        epsilon: Added to the variance.
        affine: Whether a learned scale and shift follow.
    """

    axes: int = 1
    epsilon: float = 1e-5
    affine: bool = True

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape.

        Raises:
            ShapeError: The input has fewer axes.
        """
        if len(inputs) != 1 or not 1 <= self.axes <= len(inputs[0]):
            raise ShapeError(f"layer_norm over {self.axes} axes does not fit {inputs}")
        return inputs[0]

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `scale` and `shift`, each of the size of the last axes."""
        size = inputs[0][-self.axes :]
        if not self.affine:
            return {}
        return {"scale": WeightSpec(size, "ones"), "shift": WeightSpec(size, "zeros")}

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the normalised tensor."""
        from torch.nn.functional import layer_norm

        size = inputs[0].shape[-self.axes :]
        return layer_norm(inputs[0], size, weights.get("scale"), weights.get("shift"), self.epsilon)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a LayerNormalization."""
        import numpy as np

        if self.affine:
            names = [writer.weight("scale"), writer.weight("shift")]
        else:
            size = writer.input_shapes[0][-self.axes :]
            names = [writer.constant("scale", np.ones(size, np.float32))]
        return writer.emit(
            "LayerNormalization", [inputs[0], *names], axis=-self.axes, epsilon=self.epsilon
        )
