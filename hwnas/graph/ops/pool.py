"""Pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwnas.graph.op import (
    OnnxNodeWriter,
    Padding,
    Primitive,
    RunMode,
    Shape,
    image_shape,
    register,
    window_padding,
    window_shape,
)

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.form import Form


@dataclass(frozen=True)
class _Pool(Primitive):
    kernel: int = 3
    stride: int = 1
    padding: Padding = "same"

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (C, H', W')."""
        return window_shape(self, inputs, None, self.kernel, self.stride, padding=self.padding)

    def fused(self, inputs: int) -> Form | None:
        """Return one branch without a norm; the kernels pad."""
        if self.padding == "valid":
            return None
        from hwnas.kernels.form import Form
        from hwnas.kernels.plan import Branch, BranchKind, Plan

        kind: BranchKind = "max_pool" if isinstance(self, MaxPool) else "avg_pool"
        branch = Branch(kind, kernel=self.kernel, stride=self.stride, has_norm=False)
        return Form(Plan((branch,)), ())

    def _window(self) -> dict[str, Any]:
        return {
            "kernel_shape": [self.kernel, self.kernel],
            "strides": [self.stride, self.stride],
            "pads": [self._pad] * 4,
        }

    @property
    def _pad(self) -> int:
        return window_padding(self.kernel, padding=self.padding)[0]


@register("max_pool")
@dataclass(frozen=True)
class MaxPool(_Pool):
    """The largest value of each window.

    Attributes:
        kernel: Height and width of the window.
        stride: Step in both directions.
        padding: ``same`` adds (kernel - 1) // 2 on each side.
    """

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, C, H', W']`."""
        from torch.nn.functional import max_pool2d

        return max_pool2d(inputs[0], self.kernel, self.stride, self._pad)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a MaxPool."""
        return writer.emit("MaxPool", inputs, **self._window())


@register("avg_pool")
@dataclass(frozen=True)
class AvgPool(_Pool):
    """The mean of each window; padding is not counted, as in TensorFlow's SAME pooling.

    Attributes:
        kernel: Height and width of the window.
        stride: Step in both directions.
        padding: ``same`` adds (kernel - 1) // 2 on each side.
    """

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, C, H', W']`."""
        from torch.nn.functional import avg_pool2d

        return avg_pool2d(inputs[0], self.kernel, self.stride, self._pad, count_include_pad=False)

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write an AveragePool."""
        return writer.emit("AveragePool", inputs, count_include_pad=0, **self._window())


@register("global_avg_pool")
@dataclass(frozen=True)
class GlobalAvgPool(Primitive):
    """The mean over height and width."""

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (C,)."""
        return image_shape(self, inputs)[:1]

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return `[N, C]`."""
        return inputs[0].mean(dim=(2, 3))

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a GlobalAveragePool and a Flatten."""
        return writer.emit("Flatten", [writer.emit("GlobalAveragePool", inputs)], axis=1)
