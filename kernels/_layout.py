"""Tensors as the stages of `hwnas.kernels.backend` take them; a copy only where one is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def laid_out(tensor: Tensor) -> Tensor:
    """Return an image in channels_last, anything else in C order."""
    if tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor.contiguous()


def images(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return images in channels_last."""
    return [each.contiguous(memory_format=torch.channels_last) for each in tensors]


def filters(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return scales and shifts in C order; stages look after filters themselves."""
    return [each if each.ndim == 4 else each.contiguous() for each in weights]


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type of statistics and sums: float32, but float64 for float64 activations."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def moments(statistics: Sequence[Tensor], x: Tensor) -> list[Tensor]:
    """Return running statistics in the type that goes with activations like `x`."""
    return [each.to(x.device, wide(x.dtype)).contiguous() for each in statistics]
