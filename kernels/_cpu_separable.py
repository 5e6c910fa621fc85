"""The separable convolution of `csrc/cpu/kernels/separable.h` on tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hwnas import _core
from hwnas.kernels._arena import image, pack_norm, pack_upstream
from hwnas.kernels._cpu_queue import address, call

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.backend import Norm, Upstream, Window


def separable(
    x: Tensor,
    norm: Norm | None,
    window: Window,
    depthwise: Tensor,
    pointwise: Tensor,
    statistics: bool,
) -> tuple[Tensor, Tensor | None]:
    """See `Backend.separable`.

    Raises:
        ValueError: The kernel is even, or larger than the compiled core's largest.
    """
    sizes = _sizes(x, window, pointwise)
    outputs = sizes[4]
    z = image(x.shape[0], outputs, window.size(x.shape[2]), window.size(x.shape[3]))
    moments = torch.empty(2, outputs) if statistics else None
    depthwise, pointwise = depthwise.contiguous(), pointwise.contiguous()
    call(
        _core.separable,
        sizes,
        address(x),
        pack_norm(norm),
        address(depthwise),
        address(pointwise),
        address(z),
        address(moments),
        torch.get_num_threads(),
    )
    return z, moments


def separable_backward(
    up: Upstream,
    x: Tensor,
    norm: Norm | None,
    window: Window,
    depthwise: Tensor,
    pointwise: Tensor,
    dx: Tensor,
    accumulate: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """See `Backend.separable_backward`.

    Raises:
        ValueError: The kernel is even, or larger than the compiled core's largest.
    """
    depthwise, pointwise = depthwise.contiguous(), pointwise.contiguous()
    d_depthwise, d_pointwise = torch.empty_like(depthwise), torch.empty_like(pointwise)
    sums = None if norm is None else torch.empty(2, x.shape[1])
    call(
        _core.separable_backward,
        _sizes(x, window, pointwise),
        pack_upstream(up),
        address(x),
        pack_norm(norm),
        address(depthwise),
        address(pointwise),
        address(dx),
        accumulate,
        address(d_depthwise),
        address(d_pointwise),
        address(sums),
        torch.get_num_threads(),
    )
    return d_depthwise, d_pointwise, sums


def _sizes(x: Tensor, window: Window, pointwise: Tensor) -> tuple[int, ...]:
    """Return what the core calls a shape."""
    n, c, h, w = x.shape
    if window.kernel % 2 == 0 or window.kernel > _core.largest_kernel:
        raise ValueError(
            f"kernel must be odd and at most {_core.largest_kernel}, got {window.kernel}"
        )
    return (n, h, w, c, pointwise.shape[0], window.kernel, window.stride, window.dilation)
