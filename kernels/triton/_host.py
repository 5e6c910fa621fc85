"""What the Python halves of the kernels share: sizes of tiles, operands, allocation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.backend import Norm, Upstream, Window

#: Programs that go through tiles in a loop are limited to this many: two for each multiprocessor
#: of an H100. It is a constant so that sums come in the same order on every GPU.
PROGRAMS = 264

#: How products of float32 are computed: three TF32 products on the tensor cores, which keep about
#: 22 of 24 bits of each factor. Plain TF32, PyTorch's default for convolutions, keeps 11.
#: `launch` takes "ieee" instead on AMD's GPUs.
PRECISION = "tf32x3"


def power_of_two(value: int, low: int = 1, high: int = 1 << 20) -> int:
    """Return the next power of two, within limits that are powers of two."""
    return min(high, max(low, 1 << max(value - 1, 0).bit_length()))


def vector(channels: int) -> int:
    """Return the largest power of two up to 16 that divides a channel count."""
    return min(channels & -channels, 16)


def blocks(size: int, block: int) -> int:
    """Return how many blocks cover a size."""
    return -(-size // block)


@dataclass(frozen=True, slots=True)
class Tiles:
    """A cover of `[N, P, Q]` by tiles of `rows` × `columns`.

    Attributes:
        rows: Of a tile, a power of two.
        columns: Of a tile, a power of two.
        down: Tiles in the height.
        across: Tiles in the width.
        images: N.
    """

    rows: int
    columns: int
    down: int
    across: int
    images: int

    @classmethod
    def of(cls, images: int, height: int, width: int, pixels: int, least: int = 1) -> Tiles:
        """Return tiles of about `pixels` and at least `least`, as square as they get."""
        columns = power_of_two(width, 1, 16)
        rows = power_of_two(height, 1, max(pixels // columns, 1))
        rows = max(rows, least // columns, 1)
        return cls(rows, columns, blocks(height, rows), blocks(width, columns), images)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.images * self.down * self.across

    @property
    def meta(self) -> dict[str, Any]:
        """The compile-time arguments."""
        return {"BH": self.rows, "BW": self.columns}

    def touched(self, side: tuple[int, int], out: tuple[int, int], window: Window) -> int:
        """Return how many input pixels all tiles read, halos counted for each.

        Args:
            side: Height and width of the input.
            out: Height and width of what the tiles cover.
            window: What slides over the input.
        """
        rows = _touched(side[0], out[0], self.rows, window)
        return self.images * rows * _touched(side[1], out[1], self.columns, window)


def _touched(side: int, out: int, block: int, window: Window) -> int:
    total = 0
    for start in range(0, out, block):
        last = min(start + block, out) - 1
        low = start * window.stride - window.padding
        reach = window.dilation * (window.kernel - 1)
        high = last * window.stride - window.padding + reach
        total += max(min(high, side - 1) - max(low, 0) + 1, 0)
    return total


def image(like: Tensor, channels: int, height: int, width: int, dtype: Any = None) -> Tensor:
    """Return an uninitialised `[N, channels, height, width]` tensor, channels_last."""
    return torch.empty(
        (like.shape[0], channels, height, width),
        dtype=dtype or like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )


def floats(like: Tensor, *shape: int) -> Tensor:
    """Return an uninitialised float32 tensor."""
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def zeros(like: Tensor, *shape: int) -> Tensor:
    """Return float32 zeros: what an empty batch sums to."""
    return torch.zeros(shape, dtype=torch.float32, device=like.device)


def norm_args(norm: Norm | None, unused: Tensor) -> tuple[Any, ...]:
    """Return statistics, scale, shift and epsilon; pointers that nobody follows without a norm."""
    if norm is None:
        return unused, unused, unused, 0.0
    return norm.statistics, norm.scale, norm.shift, norm.epsilon


def upstream_args(up: Upstream) -> tuple[Any, ...]:
    """Return gradient, z, statistics, scale, shift, epsilon, sums, 1 / count, gates and branch."""
    g = up.gradient
    count = g.shape[0] * g.shape[2] * g.shape[3]
    return (
        g,
        g if up.z is None else up.z,
        *norm_args(up.norm, g),
        g if up.sums is None else up.sums,
        1.0 / max(count, 1),
        g if up.gates is None else up.gates,
        up.branch,
    )


def upstream_meta(up: Upstream) -> dict[str, Any]:
    """Return the compile-time arguments of `_device.upstream` and `_device.gate_value`."""
    mode = 0 if up.norm is None else 2 if up.norm.is_batch else 1
    return {"MODE": mode, "UP_RELU": up.relu and up.z is not None, "GATED": up.gates is not None}


def upstream_reads(up: Upstream) -> int:
    """Return how many activations `_device.upstream` reads."""
    is_batch = up.norm is not None and up.norm.is_batch
    return 1 + (up.z is not None and (is_batch or up.relu))
