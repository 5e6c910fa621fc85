"""The network's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hwnas.errors import HwnasError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, register

if TYPE_CHECKING:
    from torch import Tensor


@register("input")
@dataclass(frozen=True)
class Input(Primitive):
    """A tensor that comes from outside; whoever runs or writes the graph provides it.

    Attributes:
        dtype: ``float32``, or ``int64`` for tokens.
    """

    dtype: Literal["float32", "int64"] = "float32"

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Refuse: the shape of an input is given, not derived."""
        raise HwnasError("an input has no shape rule: GraphBuilder adds it")

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the tensor that the runner passes in as the only input."""
        return inputs[0]

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Return the name that the writer passes in as the only input."""
        return inputs[0]
