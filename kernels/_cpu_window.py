"""Windows packed for `hwnas._core`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.backend import Window

#: (images, channels, height, width, out_height, out_width, kernel, stride, dilation).
PackedWindow = tuple[int, int, int, int, int, int, int, int, int]


def pack_window(window: Window, x: Tensor) -> PackedWindow:
    """Return a window over `x` `[N, C, H, W]` as `bindings/window.h` reads it."""
    n, channels, height, width = x.shape
    return (
        n,
        channels,
        height,
        width,
        window.size(height),
        window.size(width),
        window.kernel,
        window.stride,
        window.dilation,
    )
