"""Stages in Triton, for GPUs; in its interpreter, for tests."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from hwnas.kernels.backend import Backend, Norm, Upstream, Window
from hwnas.kernels.backends import BACKENDS

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@BACKENDS.register("triton")
class TritonBackend(Backend):
    """Fused Triton kernels for CUDA tensors: float32, bfloat16 and float16.

    ``TRITON_INTERPRET=1`` runs the same kernels slowly on CPU tensors. It must be set before the
    first stage runs: Triton decides when kernels are defined.
    """

    name: ClassVar[str] = "triton"
    preference: ClassVar[int] = 1

    def unavailable(self) -> str | None:
        """Return why Triton cannot run kernels here, or None if it can."""
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed: pip install 'hwnas[triton]'"
        import torch

        if torch.cuda.is_available() or _is_interpreted():
            return None
        return "no CUDA device that torch can use, and TRITON_INTERPRET is not 1"

    def accepts(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Return whether tensors are of a dtype and on a device that kernels run on.

        The interpreter is refused bfloat16: its matrix products are silently wrong there.
        """
        import torch

        if device.type == "cuda":
            return dtype in {torch.float32, torch.bfloat16, torch.float16}
        on_cpu = device.type == "cpu" and _is_interpreted()
        return on_cpu and dtype in {torch.float32, torch.float16}

    def empty(self, like: Tensor, channels: int, height: int, width: int) -> Tensor:
        """Return an activation from PyTorch's allocator."""
        from hwnas.kernels.triton import _host

        return _host.image(like, channels, height, width)

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
        from hwnas.kernels.triton import separable

        return separable.separable(x, norm, window, depthwise, pointwise, statistics)

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
        from hwnas.kernels.triton import separable

        return separable.separable_backward(
            up, x, norm, window, depthwise, pointwise, dx, accumulate
        )

    def conv(
        self,
        xs: Sequence[Tensor],
        relu: bool,
        window: Window,
        weight: Tensor,
        statistics: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """See `Backend.conv`."""
        from hwnas.kernels.triton import conv

        return conv.conv(xs, relu, window, weight, statistics)

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
        from hwnas.kernels.triton import conv

        return conv.conv_backward(up, xs, relu, window, weight, dxs, accumulate)

    def reduction(
        self, x: Tensor, relu: bool, even: Tensor, odd: Tensor, statistics: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `Backend.reduction`."""
        from hwnas.kernels.triton import reduction

        return reduction.reduction(x, relu, even, odd, statistics)

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
        from hwnas.kernels.triton import reduction

        return reduction.reduction_backward(up, x, relu, even, odd, dx, accumulate)

    def pool(
        self, x: Tensor, is_max: bool, window: Window, statistics: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `Backend.pool`."""
        from hwnas.kernels.triton import pool

        return pool.pool(x, is_max, window, statistics)

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
        from hwnas.kernels.triton import pool

        pool.pool_backward(up, index, is_max, window, dx, accumulate)

    def combine(
        self,
        zs: Sequence[Tensor],
        norms: Sequence[Norm | None],
        gates: Tensor | None,
        relu: bool,
    ) -> Tensor:
        """See `Backend.combine`."""
        from hwnas.kernels.triton import combine

        return combine.combine(zs, norms, gates, relu)

    def combine_backward(
        self,
        gradient: Tensor,
        zs: Sequence[Tensor | None],
        norms: Sequence[Norm | None],
        relu: bool,
    ) -> Tensor:
        """See `Backend.combine_backward`."""
        from hwnas.kernels.triton import combine

        return combine.combine_backward(gradient, zs, norms, relu)

    def accumulate(self, up: Upstream, dx: Tensor, accumulate: bool) -> None:
        """See `Backend.accumulate`."""
        from hwnas.kernels.triton import combine

        combine.accumulate(up, dx, accumulate)

    def rnn_cell(
        self,
        x: Tensor,
        h0: Tensor,
        w_input: Tensor,
        w_hidden: Tensor,
        edges: Sequence[Tensor],
        previous: Sequence[Sequence[int]],
        activations: Sequence[Sequence[int]],
        edge_index: Sequence[Sequence[int]],
        carry_last: bool,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """See `Backend.rnn_cell`."""
        from hwnas.kernels.triton import rnn

        return rnn.rnn_cell(
            x, h0, w_input, w_hidden, edges, previous, activations, edge_index, carry_last
        )

    def rnn_saved_shapes(
        self, steps: int, rows: int, hidden: int, nodes: int
    ) -> Sequence[tuple[int, ...]]:
        """See `Backend.rnn_saved_shapes`: pre-activations, then states."""
        return [(nodes * steps * rows, 2 * hidden), ((nodes * steps + 1) * rows, hidden)]

    def rnn_cell_backward(
        self,
        d_output: Tensor,
        d_state: Tensor,
        saved: Sequence[Tensor],
        x: Tensor,
        h0: Tensor,
        w_input: Tensor,
        w_hidden: Tensor,
        edges: Sequence[Tensor],
        previous: Sequence[Sequence[int]],
        activations: Sequence[Sequence[int]],
        edge_index: Sequence[Sequence[int]],
        carry_last: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
        """See `Backend.rnn_cell_backward`."""
        from hwnas.kernels.triton import rnn

        return rnn.rnn_cell_backward(
            d_output,
            d_state,
            saved,
            x,
            h0,
            w_input,
            w_hidden,
            edges,
            previous,
            activations,
            edge_index,
            carry_last,
        )


def _is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
