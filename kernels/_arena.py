"""CPU tensors in the arena of `hwnas._core`, and operands packed for its functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.utils.dlpack import from_dlpack

from hwnas import _core
from hwnas.kernels._cpu_queue import address

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.backend import Norm, Upstream

#: (statistics, scale, shift, epsilon, is_batch), addresses as integers.
PackedNorm = tuple[int, int, int, float, bool]
#: (gradient, z, norm, sums, gate, relu), addresses as integers.
PackedUpstream = tuple[int, int, PackedNorm | None, int, float, bool]


def image(n: int, c: int, h: int, w: int) -> Tensor:
    """Return an uninitialised float32 `[n, c, h, w]` tensor, channels_last, in the arena."""
    return from_dlpack(_core.arena_tensor((n, c, h, w)))


def byte_image(n: int, c: int, h: int, w: int) -> Tensor:
    """Return an uninitialised uint8 `[n, c, h, w]` tensor, channels_last, in the arena."""
    return from_dlpack(_core.arena_tensor((n, c, h, w), True))


def flat(*shape: int) -> Tensor:
    """Return an uninitialised float32 tensor in C order (not of four dimensions)."""
    return from_dlpack(_core.arena_tensor(shape))


def pack_norm(norm: Norm | None) -> PackedNorm | None:
    """Return a norm as `bindings/bind.h` reads it; its tensors must stay alive meanwhile."""
    if norm is None:
        return None
    return (
        address(norm.statistics),
        address(norm.scale),
        address(norm.shift),
        norm.epsilon,
        norm.is_batch,
    )


def pack_upstream(up: Upstream) -> PackedUpstream:
    """Return an upstream gradient as `bindings/bind.h` reads it."""
    return (
        address(up.gradient),
        address(up.z),
        pack_norm(up.norm),
        address(up.sums),
        1.0 if up.gates is None else float(up.gates[up.branch]),
        up.relu,
    )
