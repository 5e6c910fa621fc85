"""The stages in plain PyTorch, pass after pass: what every backend is compared with.

Registered as the backend ``plain`` for tests, so that the composition of stages is tested apart
from their speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from hwnas.kernels.backend import Backend, Norm, Upstream, Window


def _shape(norm: Tensor) -> Tensor:
    return norm.view(1, -1, 1, 1)


def zhat(norm: Norm, z: Tensor) -> Tensor:
    """Return z with mean 0 and variance 1."""
    mean, variance = norm.statistics.to(z.dtype)
    return (z - _shape(mean)) / _shape(variance + norm.epsilon).sqrt()


def apply_norm(norm: Norm | None, z: Tensor) -> Tensor:
    """Return norm(z), or z where there is no norm."""
    if norm is None:
        return z
    return zhat(norm, z) * _shape(norm.scale) + _shape(norm.shift)


def statistics_of(z: Tensor) -> Tensor:
    """Return mean and biased variance of each channel, zeros for an empty batch."""
    if not z.shape[0]:
        return z.new_zeros(2, z.shape[1])
    return torch.stack([z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=False)])


def masked(up_norm: Norm | None, z: Tensor | None, gradient: Tensor, relu: bool) -> Tensor:
    """Return the gradient, zeroed where a ReLU behind the norm is off."""
    if not relu:
        return gradient
    assert z is not None
    return gradient * (apply_norm(up_norm, z) > 0)


def dz_of(up: Upstream) -> Tensor:
    """The gradient of z, by the formula of `Upstream`."""
    gate = 1.0 if up.gates is None else up.gates[up.branch]
    g = masked(up.norm, up.z, up.gradient, up.relu)
    if up.norm is None:
        return gate * g
    a = _shape(up.norm.scale / (up.norm.statistics[1].to(g.dtype) + up.norm.epsilon).sqrt())
    if not up.norm.is_batch:
        return gate * a * g
    assert up.sums is not None
    assert up.z is not None
    count = max(1, g.numel() // g.shape[1])
    means = up.sums.to(g.dtype) / count
    return gate * a * (g - _shape(means[0]) - zhat(up.norm, up.z) * _shape(means[1]))


def _put(dx: Tensor, value: Tensor, accumulate: bool) -> None:
    if accumulate:
        dx += value
    else:
        dx.copy_(value)


class PlainBackend(Backend):
    """Any dtype, any device."""

    name: ClassVar[str] = "plain"
    preference: ClassVar[int] = 99

    def unavailable(self) -> str | None:
        """See `Backend.unavailable`."""
        return None

    def accepts(self, device: torch.device, dtype: torch.dtype) -> bool:
        """See `Backend.accepts`."""
        return False  # never by default

    def empty(self, like: Tensor, channels: int, height: int, width: int) -> Tensor:
        """See `Backend.empty`."""
        shape = (like.shape[0], channels, height, width)
        x = torch.full(shape, torch.nan, dtype=like.dtype, device=like.device)
        return x.contiguous(memory_format=torch.channels_last)

    def _separable(self, u: Tensor, window: Window, depthwise: Tensor, pointwise: Tensor) -> Tensor:
        return F.conv2d(_conv2d(F.relu(u), depthwise, window, u.shape[1]), pointwise)

    def separable(
        self,
        x: Tensor,
        norm: Norm | None,
        window: Window,
        depthwise: Tensor,
        pointwise: Tensor,
        statistics: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """See `Backend.separable`."""
        z = self._separable(apply_norm(norm, x), window, depthwise, pointwise)
        return _out(z), statistics_of(z) if statistics else None

    def separable_backward(
        self,
        up: Upstream,
        x: Tensor,
        norm: Norm | None,
        window: Window,
        depthwise: Tensor,
        pointwise: Tensor,
        dx: Tensor,
        accumulate: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Backend.separable_backward`."""
        u = apply_norm(norm, x)
        y = _conv2d(F.relu(u), depthwise, window, x.shape[1])
        dy, d_pointwise = _conv2d_backward(dz_of(up), y, pointwise, Window(1))
        du, d_depthwise = _conv2d_backward(dy, F.relu(u), depthwise, window, x.shape[1])
        du = du * (u > 0)
        _put(dx, du, accumulate)
        if norm is None:
            return d_depthwise, d_pointwise, None
        sums = torch.stack([du.sum((0, 2, 3)), (du * zhat(norm, x)).sum((0, 2, 3))])
        return d_depthwise, d_pointwise, sums

    def conv(
        self, xs: Sequence[Tensor], relu: bool, window: Window, weight: Tensor, statistics: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `Backend.conv`."""
        z = _conv(xs, relu, window, weight)
        return _out(z), statistics_of(z) if statistics else None

    def conv_backward(
        self,
        up: Upstream,
        xs: Sequence[Tensor],
        relu: bool,
        window: Window,
        weight: Tensor,
        dxs: Sequence[Tensor | None],
        accumulate: Sequence[bool],
    ) -> Tensor:
        """See `Backend.conv_backward`."""
        x = torch.cat(list(xs), 1)
        dx, d_weight = _conv2d_backward(dz_of(up), F.relu(x) if relu else x, weight, window)
        found = (dx * (x > 0) if relu else dx).split([each.shape[1] for each in xs], 1)
        for target, value, add in zip(dxs, found, accumulate, strict=True):
            if target is not None:
                _put(target, value, add)
        return d_weight

    def reduction(
        self, x: Tensor, relu: bool, even: Tensor, odd: Tensor, statistics: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `Backend.reduction`."""
        z = _reduction(x, relu, even, odd)
        return _out(z), statistics_of(z) if statistics else None

    def reduction_backward(
        self,
        up: Upstream,
        x: Tensor,
        relu: bool,
        even: Tensor,
        odd: Tensor,
        dx: Tensor | None,
        accumulate: bool,
    ) -> tuple[Tensor, Tensor]:
        """See `Backend.reduction_backward`."""
        u = F.relu(x) if relu else x
        first, second = dz_of(up).split([even.shape[0], odd.shape[0]], 1)
        d_even_x, d_even = _conv2d_backward(first, u, even, Window(1, 2))
        d_shifted, d_odd = _conv2d_backward(second, _shifted(u), odd, Window(1, 2))
        height, width = x.shape[2] - 1, x.shape[3] - 1
        found = d_even_x + F.pad(d_shifted[:, :, :height, :width], (1, 0, 1, 0))
        if dx is not None:
            _put(dx, found * (x > 0) if relu else found, accumulate)
        return d_even, d_odd

    def pool(
        self, x: Tensor, is_max: bool, window: Window, statistics: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `Backend.pool`."""
        z, index = _pool(x, is_max, window)
        return _out(z), index, statistics_of(z) if statistics else None

    def pool_backward(
        self,
        up: Upstream,
        index: Tensor | None,
        is_max: bool,
        window: Window,
        dx: Tensor,
        accumulate: bool,
    ) -> None:
        """See `Backend.pool_backward`."""
        dz = dz_of(up)
        if not is_max:
            kernel, step, pads = [window.kernel] * 2, [window.stride] * 2, [window.padding] * 2
            found = torch.ops.aten.avg_pool2d_backward(
                dz.contiguous(), dx.contiguous(), kernel, step, pads, False, False, None
            )
            _put(dx, found, accumulate)
            return
        assert index is not None
        k, pad = window.kernel, window.padding
        taps = torch.zeros(dz.shape[0], dz.shape[1], k * k, *dz.shape[2:], dtype=dz.dtype)
        taps.scatter_(2, index.long().unsqueeze(2), dz.unsqueeze(2))
        columns = taps.flatten(3).flatten(1, 2)
        size = tuple(dx.shape[2:])
        _put(dx, F.fold(columns, size, k, padding=pad, stride=window.stride), accumulate)

    def combine(
        self, zs: Sequence[Tensor], norms: Sequence[Norm | None], gates: Tensor | None, relu: bool
    ) -> Tensor:
        """See `Backend.combine`."""
        y = torch.zeros_like(zs[0])
        for b, (z, norm) in enumerate(zip(zs, norms, strict=True)):
            u = apply_norm(norm, z)
            u = F.relu(u) if relu else u
            y = y + (u if gates is None else gates[b] * u)
        return _out(y)

    def combine_backward(
        self,
        gradient: Tensor,
        zs: Sequence[Tensor | None],
        norms: Sequence[Norm | None],
        relu: bool,
    ) -> Tensor:
        """See `Backend.combine_backward`."""
        rows = []
        for z, norm in zip(zs, norms, strict=True):
            g = masked(norm, z, gradient, relu)
            second = torch.full_like(g[0, :, 0, 0] if len(g) else g.sum((0, 2, 3)), torch.nan)
            if z is not None:
                second = (g * (z if norm is None else zhat(norm, z))).sum((0, 2, 3))
            rows.append(torch.stack([g.sum((0, 2, 3)), second]))
        return torch.stack(rows)

    def accumulate(self, up: Upstream, dx: Tensor, accumulate: bool) -> None:
        """See `Backend.accumulate`."""
        _put(dx, dz_of(up), accumulate)

    def rnn_cell(self, *args: object) -> tuple[Tensor, Tensor, list[Tensor]]:
        """See `Backend.rnn_cell`."""
        raise NotImplementedError

    def rnn_saved_shapes(self, *args: int) -> Sequence[tuple[int, ...]]:
        """See `Backend.rnn_saved_shapes`."""
        raise NotImplementedError

    def rnn_cell_backward(
        self, *args: object
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
        """See `Backend.rnn_cell_backward`."""
        raise NotImplementedError


def _out(z: Tensor) -> Tensor:
    return z.detach().contiguous(memory_format=torch.channels_last)


def _conv(xs: Sequence[Tensor], relu: bool, window: Window, weight: Tensor) -> Tensor:
    x = torch.cat(list(xs), 1)
    return _conv2d(F.relu(x) if relu else x, weight, window)


def _conv2d(x: Tensor, weight: Tensor, window: Window, groups: int = 1) -> Tensor:
    return F.conv2d(x, weight, None, window.stride, window.padding, window.dilation, groups)


def _conv2d_backward(
    dz: Tensor, x: Tensor, weight: Tensor, window: Window, groups: int = 1
) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight; autograd itself is off inside an operator."""
    args = (window.stride, window.padding, window.dilation, groups)
    dx = conv2d_input(x.shape, weight, dz, *args)
    return dx, conv2d_weight(x, weight.shape, dz, *args)


def _reduction(x: Tensor, relu: bool, even: Tensor, odd: Tensor) -> Tensor:
    x = F.relu(x) if relu else x
    return torch.cat([F.conv2d(x, even, stride=2), F.conv2d(_shifted(x), odd, stride=2)], 1)


def _shifted(x: Tensor) -> Tensor:
    rows, columns = (side % 2 for side in x.shape[2:])
    return F.pad(x[:, :, 1:, 1:], (0, columns, 0, rows))


def _pool(x: Tensor, is_max: bool, window: Window) -> tuple[Tensor, Tensor | None]:
    k, pad = window.kernel, window.padding
    if not is_max:
        return F.avg_pool2d(x, k, window.stride, pad, count_include_pad=False), None
    z, at = F.max_pool2d(x, k, window.stride, pad, return_indices=True)
    p, q = z.shape[2:]
    top = torch.arange(p).view(-1, 1) * window.stride - pad
    left = torch.arange(q).view(1, -1) * window.stride - pad
    index = (at // x.shape[3] - top) * k + (at % x.shape[3] - left)
    return z, index.to(torch.uint8).contiguous(memory_format=torch.channels_last)
