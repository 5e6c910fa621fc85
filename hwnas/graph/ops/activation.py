"""Activation functions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import OnnxNodeWriter, Primitive, RunMode, Shape, register

if TYPE_CHECKING:
    from torch import Tensor


class _Activation(Primitive):
    """A function of each value."""

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """Return the function's values."""

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape.

        Raises:
            ShapeError: There is not one input.
        """
        if len(inputs) != 1:
            raise ShapeError(f"{self.kind} expects one input, got {len(inputs)}")
        return inputs[0]

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the function's values."""
        return self.apply(inputs[0])


@register("relu")
@dataclass(frozen=True)
class Relu(_Activation):
    """max(x, 0)."""

    def apply(self, x: Tensor) -> Tensor:
        """Return max(x, 0)."""
        from torch.nn.functional import relu

        return relu(x)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Relu."""
        return writer.emit("Relu", inputs)


@register("relu6")
@dataclass(frozen=True)
class Relu6(_Activation):
    """min(max(x, 0), 6) (Howard et al. 2017, MobileNet)."""

    def apply(self, x: Tensor) -> Tensor:
        """Return min(max(x, 0), 6)."""
        from torch.nn.functional import relu6

        return relu6(x)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Clip."""
        import numpy as np

        limits = [writer.constant(f"limit{each}", np.array(each, np.float32)) for each in (0, 6)]
        return writer.emit("Clip", [inputs[0], *limits])


@register("sigmoid")
@dataclass(frozen=True)
class Sigmoid(_Activation):
    """1 / (1 + exp(-x))."""

    def apply(self, x: Tensor) -> Tensor:
        """Return 1 / (1 + exp(-x))."""
        return x.sigmoid()

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Sigmoid."""
        return writer.emit("Sigmoid", inputs)


@register("tanh")
@dataclass(frozen=True)
class Tanh(_Activation):
    """The hyperbolic tangent."""

    def apply(self, x: Tensor) -> Tensor:
        """Return tanh(x)."""
        return x.tanh()

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Tanh."""
        return writer.emit("Tanh", inputs)


@register("swish")
@dataclass(frozen=True)
class Swish(_Activation):
    """x · sigmoid(x) (Ramachandran et al. 2017), also called SiLU."""

    def apply(self, x: Tensor) -> Tensor:
        """Return x · sigmoid(x)."""
        from torch.nn.functional import silu

        return silu(x)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Sigmoid and a Mul."""
        return writer.emit("Mul", [inputs[0], writer.emit("Sigmoid", inputs)])


@register("hard_sigmoid")
@dataclass(frozen=True)
class HardSigmoid(_Activation):
    """min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, section 5.2)."""

    def apply(self, x: Tensor) -> Tensor:
        """Return min(max(x + 3, 0), 6) / 6."""
        from torch.nn.functional import hardsigmoid

        return hardsigmoid(x)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a HardSigmoid."""
        return writer.emit("HardSigmoid", inputs, alpha=1 / 6, beta=0.5)


@register("hard_swish")
@dataclass(frozen=True)
class HardSwish(_Activation):
    """x · hard_sigmoid(x) (Howard et al. 2019, section 5.2)."""

    def apply(self, x: Tensor) -> Tensor:
        """Return x · hard_sigmoid(x)."""
        from torch.nn.functional import hardswish

        return hardswish(x)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a HardSwish."""
        return writer.emit("HardSwish", inputs)


@register("gelu")
@dataclass(frozen=True)
class Gelu(_Activation):
    """x · Φ(x), with the exact normal distribution (Hendrycks & Gimpel 2016)."""

    def apply(self, x: Tensor) -> Tensor:
        """Return x · Φ(x)."""
        from torch.nn.functional import gelu

        return gelu(x)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Gelu."""
        return writer.emit("Gelu", inputs)


@register("leaky_relu")
@dataclass(frozen=True)
class LeakyRelu(_Activation):
    """max(x, 0) + slope · min(x, 0) (Maas et al. 2013).

    Attributes:
        slope: For negative values.
    """

    slope: float = 0.01

    def apply(self, x: Tensor) -> Tensor:
        """Return max(x, 0) + slope · min(x, 0)."""
        from torch.nn.functional import leaky_relu

        return leaky_relu(x, self.slope)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a LeakyRelu."""
        return writer.emit("LeakyRelu", inputs, alpha=self.slope)


@register("elu")
@dataclass(frozen=True)
class Elu(_Activation):
    """x where it is positive, α (exp(x) - 1) elsewhere (Clevert et al. 2016).

    Attributes:
        alpha: The limit for negative values is -α.
    """

    alpha: float = 1.0

    def apply(self, x: Tensor) -> Tensor:
        """Return x or α (exp(x) - 1)."""
        from torch.nn.functional import elu

        return elu(x, self.alpha)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write an Elu."""
        return writer.emit("Elu", inputs, alpha=self.alpha)
