"""Image stages of the CUDA backend: tensors in, addresses out to the compiled module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.backend import Norm, Upstream, Window

#: (statistics, scale, shift, epsilon, is_batch), addresses as integers.
PackedNorm = tuple[int, int, int, float, bool]


class Operands:
    """Addresses of tensors that are kept alive until the kernels are enqueued.

    After that the caching allocator's own rule holds: memory that is given back is used again on
    the same stream, so after the kernel.
    """

    def __init__(self) -> None:
        self._kept: list[Tensor] = []

    def address(self, x: Tensor | None, dtype: torch.dtype | None = None) -> int:
        """Return where `x` lies: an image in NHWC order, all else in C order; 0 for None."""
        if x is None:
            return 0
        x = x.to(dtype or x.dtype)
        is_image = x.dim() == 4
        x = x.contiguous(memory_format=torch.channels_last) if is_image else x.contiguous()
        self._kept.append(x)
        return x.data_ptr()

    def norm(self, norm: Norm | None) -> PackedNorm | None:
        """Return a norm as the bindings read it."""
        if norm is None:
            return None
        return (
            self.address(norm.statistics, torch.float32),
            self.address(norm.scale, torch.float32),
            self.address(norm.shift, torch.float32),
            norm.epsilon,
            norm.is_batch,
        )

    def upstream(self, up: Upstream) -> tuple[int, int, PackedNorm | None, int, int, bool]:
        """Return an upstream gradient as the bindings read it; its gate stays on the device."""
        gate = None if up.gates is None else up.gates[up.branch]
        return (
            self.address(up.gradient),
            self.address(up.z),
            self.norm(up.norm),
            self.address(up.sums, torch.float32),
            self.address(gate, torch.float32),
            up.relu,
        )


def dtype_name(x: Tensor) -> str:
    """Return the dtype as the bindings spell it."""
    return str(x.dtype).removeprefix("torch.")


def stream_of(x: Tensor) -> int:
    """Return the current stream of a tensor's device (0 on the CPU, where tests run)."""
    return int(torch.cuda.current_stream(x.device).cuda_stream) if x.is_cuda else 0


def separable(
    module: Any,
    x: Tensor,
    norm: Norm | None,
    window: Window,
    depthwise: Tensor,
    pointwise: Tensor,
    statistics: bool,
) -> tuple[Tensor, Tensor | None]:
    """Run `Backend.separable`."""
    sizes = _sizes(x, window, pointwise)
    n, d, p, q = sizes[0], *sizes[4:7]
    z = _image(x, (n, d, p, q))
    found = x.new_empty((2, d), dtype=torch.float32) if statistics else None
    if not z.numel():
        return z, found.zero_() if found is not None else None
    own = Operands()
    workspace = None
    if found is not None:
        workspace = _scratch(x, module.separable_workspace(dtype_name(x), sizes))
    module.separable(
        dtype_name(x),
        sizes,
        own.address(x),
        own.norm(norm),
        _weight(own, depthwise, x),
        _weight(own, pointwise, x),
        z.data_ptr(),
        own.address(found),
        own.address(workspace),
        stream_of(x),
    )
    return z, found


def separable_backward(
    module: Any,
    up: Upstream,
    x: Tensor,
    norm: Norm | None,
    window: Window,
    depthwise: Tensor,
    pointwise: Tensor,
    dx: Tensor,
    accumulate: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run `Backend.separable_backward`."""
    sizes = _sizes(x, window, pointwise)
    d_depthwise = torch.empty(depthwise.shape, dtype=x.dtype, device=x.device)
    d_pointwise = torch.empty(pointwise.shape, dtype=x.dtype, device=x.device)
    sums = None if norm is None else x.new_empty((2, x.shape[1]), dtype=torch.float32)
    if not up.gradient.numel():
        for each in (d_depthwise, d_pointwise, *([] if sums is None else [sums])):
            each.zero_()
        if not accumulate:
            dx.zero_()
        return d_depthwise.to(depthwise.dtype), d_pointwise.to(pointwise.dtype), sums
    own = Operands()
    workspace = _scratch(x, module.separable_backward_workspace(dtype_name(x), sizes))
    module.separable_backward(
        dtype_name(x),
        sizes,
        own.upstream(up),
        own.address(x),
        own.norm(norm),
        _weight(own, depthwise, x),
        _weight(own, pointwise, x),
        dx.data_ptr(),
        accumulate,
        d_depthwise.data_ptr(),
        d_pointwise.data_ptr(),
        own.address(sums),
        workspace.data_ptr(),
        stream_of(x),
    )
    return d_depthwise.to(depthwise.dtype), d_pointwise.to(pointwise.dtype), sums


def combine(
    module: Any,
    zs: Sequence[Tensor],
    norms: Sequence[Norm | None],
    gates: Tensor | None,
    relu: bool,
) -> Tensor:
    """Run `Backend.combine`."""
    y = _image(zs[0], tuple(zs[0].shape))
    if not y.numel():
        return y
    own = Operands()
    addresses = [own.address(z) for z in zs]
    packed = [own.norm(norm) for norm in norms]
    gates_at = own.address(gates, torch.float32)
    pixels, channels = _pixels(y)
    most = module.MOST_BRANCHES
    for first in range(0, len(zs), most):
        chosen = slice(first, first + most)
        module.combine(
            dtype_name(y),
            pixels,
            channels,
            addresses[chosen],
            packed[chosen],
            gates_at + 4 * first if gates_at else 0,
            relu,
            y.data_ptr(),
            first > 0,
            stream_of(y),
        )
    return y


def combine_backward(
    module: Any,
    gradient: Tensor,
    zs: Sequence[Tensor | None],
    norms: Sequence[Norm | None],
    relu: bool,
) -> Tensor:
    """Run `Backend.combine_backward`."""
    pixels, channels = _pixels(gradient)
    sums = gradient.new_empty((len(zs), 2, channels), dtype=torch.float32)
    if not gradient.numel():
        return sums.zero_()
    own = Operands()
    addresses = [own.address(z) for z in zs]
    packed = [own.norm(norm) for norm in norms]
    gradient_at = own.address(gradient)
    most = module.MOST_BRANCHES
    size = module.combine_backward_workspace(pixels, channels, min(most, len(zs)))
    workspace = _scratch(gradient, size)
    for first in range(0, len(zs), most):
        chosen = slice(first, first + most)
        module.combine_backward(
            dtype_name(gradient),
            pixels,
            channels,
            gradient_at,
            addresses[chosen],
            packed[chosen],
            relu,
            sums[chosen].data_ptr(),
            workspace.data_ptr(),
            stream_of(gradient),
        )
    return sums


def accumulate(module: Any, up: Upstream, dx: Tensor, accumulate: bool) -> None:
    """Run `Backend.accumulate`."""
    if not dx.numel():
        return
    own = Operands()
    pixels, channels = _pixels(dx)
    packed = own.upstream(up)
    module.accumulate(
        dtype_name(dx), pixels, channels, packed, dx.data_ptr(), accumulate, stream_of(dx)
    )


def _sizes(x: Tensor, window: Window, pointwise: Tensor) -> tuple[int, ...]:
    """(n, c, h, w, d, p, q, kernel, stride, dilation)."""
    n, c, h, w = x.shape
    out = (pointwise.shape[0], window.size(h), window.size(w))
    return (n, c, h, w, *out, window.kernel, window.stride, window.dilation)


def _image(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _scratch(like: Tensor, size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device=like.device)


def _weight(own: Operands, weight: Tensor, x: Tensor) -> int:
    """The address of a weight in C order, in the dtype of the activations."""
    return own.address(weight.to(x.dtype).contiguous().flatten())


def _pixels(y: Tensor) -> tuple[int, int]:
    n, channels, height, width = y.shape
    return n * height * width, channels
