"""What an op is: a frozen dataclass whose fields are its attributes.

A *primitive* knows its shape rule, its weights with their initialisation, its PyTorch reference,
its ONNX form and its MACs. A *composite* is defined by its expansion into other ops and by nothing
else. An op is one file in `hwnas.graph.ops`; torch is imported inside `forward` only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

from hwnas.errors import ShapeError
from hwnas.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from hwnas.graph.builder import GraphBuilder, Value
    from hwnas.kernels.form import Form

Shape: TypeAlias = tuple[int, ...]
#: Height and width; one number stands for both.
Size: TypeAlias = int | tuple[int, int]
#: ``same``: dilation * (kernel - 1) // 2 zeros on each side; ``valid``: none.
Padding = Literal["same", "valid"]
Init = Literal["he_normal", "uniform", "zeros", "ones"]


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """Shape and initialisation of one weight.

    Attributes:
        shape: The tensor's shape.
        init: ``he_normal`` draws from N(0, 2 / fan_in) (He et al. 2015, eq. 10), ``uniform`` from
            ± `bound`.
        fan_in: Number of inputs that one output sums over; used by ``he_normal``.
        is_trainable: False for running statistics.
        bound: Largest magnitude that ``uniform`` draws.
    """

    shape: Shape
    init: Init
    fan_in: int = 1
    is_trainable: bool = True
    bound: float = 0.0

    @property
    def std(self) -> float:
        """Standard deviation of ``he_normal``."""
        return math.sqrt(2.0 / self.fan_in)


@dataclass(frozen=True, slots=True)
class RunMode:
    """How a forward pass treats batch norm and dropout.

    Attributes:
        batch_statistics: Normalise by the batch's own mean and variance, else by the running ones.
        momentum: Share of the batch's statistics that enters the running ones; 0 leaves those be.
        dropout: Whether dropout drops.
        progress: Share of the training that is done, 0 to 1; scheduled drop-path grows with it.
    """

    batch_statistics: bool
    momentum: float = 0.0
    dropout: bool = False
    progress: float = 0.0


#: Training a network of its own: batch statistics, running ones follow with momentum 0.1.
TRAIN = RunMode(batch_statistics=True, momentum=0.1, dropout=True)
#: Training shared weights. Running statistics of a weight that many children share describe none
#: of them, so they are not kept (ENAS normalises by the batch throughout its search).
TRAIN_SHARED = RunMode(batch_statistics=True, dropout=True)
#: Scoring a child with shared weights by the batch's own statistics, as ENAS does.
BATCH = RunMode(batch_statistics=True)
#: Inference with running statistics: a trained network, or a recalibrated child.
EVAL = RunMode(batch_statistics=False)


class OnnxNodeWriter(Protocol):
    """What a primitive may use to write itself as ONNX nodes."""

    @property
    def input_shapes(self) -> Sequence[Shape]:
        """Shapes of the op's inputs, without the batch."""

    def emit(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node and return the name of its output."""

    def emit_many(
        self, op_type: str, inputs: Sequence[str], count: int, **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs and return their names."""

    def weight(self, local: str) -> str:
        """Return the name of the initializer of the op's own weight `local`."""

    def array(self, local: str) -> np.ndarray[Any, Any]:
        """Return the value of the op's own weight `local`."""

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> str:
        """Add an initializer and return its name."""


@dataclass(frozen=True)
class Op(ABC):
    """An operation of a graph. Subclasses are frozen dataclasses registered in `OPS`."""

    kind: ClassVar[str]

    def fused(self, inputs: int) -> Form | None:
        """Return how fused kernels run this op, or None if they do not.

        Args:
            inputs: Number of inputs that the op has here.
        """
        return None


class Primitive(Op):
    """An op with a meaning of its own."""

    @abstractmethod
    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the output's shape, without the batch.

        Raises:
            ShapeError: The inputs do not fit the op.
        """

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return the op's weights by their local names."""
        return {}

    @abstractmethod
    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Run the PyTorch reference; inputs are `[N, *shape]`."""

    @abstractmethod
    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write the inference form and return the name of the output tensor."""

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Return multiply-accumulates for one image; 0 for ops that have none."""
        return 0


class Composite(Op):
    """An op that is defined by its expansion; a fused kernel is only a faster way to run it."""

    @abstractmethod
    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Add the ops that this one stands for. Weight names are relative to the op's own."""


def matrix_spec(shape: Shape, fan_in: int, bound: float | None) -> WeightSpec:
    """Return a matrix that starts uniformly in ± `bound`, or without one as ``he_normal``."""
    if bound is None:
        return WeightSpec(shape, "he_normal", fan_in=fan_in)
    return WeightSpec(shape, "uniform", bound=bound)


def register(kind: str) -> Any:
    """Register an op class under `kind` and tell the class its name."""

    def decorate(cls: type[Op]) -> type[Op]:
        cls.kind = kind
        return OPS.register(kind)(cls)

    return decorate


def image_shape(op: Op, inputs: Sequence[Shape], count: int = 1) -> tuple[int, int, int]:
    """Return the first input's (C, H, W).

    Raises:
        ShapeError: There are not `count` inputs, or the first is not an image.
    """
    if len(inputs) != count or len(inputs[0]) != 3:
        raise ShapeError(f"{op.kind} expects {count} input(s) of shape (C, H, W), got {inputs}")
    channels, height, width = inputs[0]
    return channels, height, width


def both(size: Size) -> tuple[int, int]:
    """Return height and width."""
    return (size, size) if isinstance(size, int) else size


def window_padding(kernel: Size, dilation: int = 1, padding: Padding = "same") -> tuple[int, int]:
    """Return how many zeros a window adds above and below, and left and right."""
    if padding == "valid":
        return (0, 0)
    height, width = both(kernel)
    return (dilation * (height - 1) // 2, dilation * (width - 1) // 2)


def window_shape(
    op: Op,
    inputs: Sequence[Shape],
    channels: int | None,
    kernel: Size,
    stride: Size,
    dilation: int = 1,
    padding: Padding = "same",
) -> Shape:
    """Shape after a window moved over the image.

    Raises:
        ShapeError: The input is not an image.
    """
    in_channels, *size = image_shape(op, inputs)
    pads = window_padding(kernel, dilation, padding)
    found = [
        (length + 2 * pad - dilation * (taps - 1) - 1) // step + 1
        for length, pad, taps, step in zip(size, pads, both(kernel), both(stride), strict=True)
    ]
    return (in_channels if channels is None else channels, *found)


OPS: Registry[Op] = Registry("op", "hwnas.graph.ops")
