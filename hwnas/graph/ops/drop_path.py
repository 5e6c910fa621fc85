"""Drop-path: a whole branch is left out, for one image at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, register

if TYPE_CHECKING:
    from torch import Tensor


@register("drop_path")
@dataclass(frozen=True)
class DropPath(Primitive):
    """Zero an image's whole branch with a probability, and scale the others up.

    The probability grows linearly from 0 at the start of the training to `rate` at its end
    (ScheduledDropPath, Zoph et al. 2018, section 4; DARTS' and ENAS' code do the same). What
    passes is divided by the probability to pass, so inference needs nothing.

    Attributes:
        rate: Probability at the end of the training, in [0, 1).
    """

    rate: float

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape.

        Raises:
            ShapeError: There is not one input, or the rate is no probability below 1.
        """
        if len(inputs) != 1 or not 0.0 <= self.rate < 1.0:
            raise ShapeError(f"drop_path of rate {self.rate} expects one input, got {len(inputs)}")
        return inputs[0]

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the input, with some of the batch's images zeroed."""
        x, rate = inputs[0], self.rate * mode.progress
        if not mode.dropout or rate <= 0.0:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1.0 - rate)
        return x * keep.div_(1.0 - rate)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write nothing: inference drops nothing."""
        return inputs[0]
