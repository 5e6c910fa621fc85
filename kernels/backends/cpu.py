"""Stages in C++ (`csrc/cpu`), for the instruction set that the processor has."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from hwnas.kernels.backend import Backend, Norm, Upstream, Window
from hwnas.kernels.backends import BACKENDS

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@BACKENDS.register("cpu")
class CpuBackend(Backend):
    """Fused C++ kernels for float32 on the CPU, with the threads that PyTorch has.

    The same number of threads gives the same bits.
    """

    name: ClassVar[str] = "cpu"

    def unavailable(self) -> str | None:
        """Return None: the compiled core is part of every installation."""
        return None

    def accepts(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Return whether tensors are float32 on the CPU."""
        import torch

        return device.type == "cpu" and dtype == torch.float32

    def together(self) -> contextlib.AbstractContextManager[None]:
        """See `Backend.together`."""
        from hwnas.kernels import _cpu_queue

        return _cpu_queue.Together()

    def catch_up(self) -> None:
        """See `Backend.catch_up`."""
        from hwnas.kernels import _cpu_queue

        _cpu_queue.catch_up()

    def empty(self, like: Tensor, channels: int, height: int, width: int) -> Tensor:
        """Return an activation in the arena."""
        from hwnas.kernels import _arena

        return _arena.image(like.shape[0], channels, height, width)

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
        from hwnas.kernels import _cpu_separable

        return _cpu_separable.separable(x, norm, window, depthwise, pointwise, statistics)

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
        from hwnas.kernels import _cpu_separable

        return _cpu_separable.separable_backward(
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
        from hwnas.kernels import _cpu_conv

        return _cpu_conv.conv(xs, relu, window, weight, statistics)

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
        from hwnas.kernels import _cpu_conv

        return _cpu_conv.conv_backward(up, xs, relu, window, weight, dxs, accumulate)

    def reduction(
        self, x: Tensor, relu: bool, even: Tensor, odd: Tensor, statistics: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `Backend.reduction`."""
        from hwnas.kernels import _cpu_conv

        return _cpu_conv.reduction(x, relu, even, odd, statistics)

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
        from hwnas.kernels import _cpu_conv

        return _cpu_conv.reduction_backward(up, x, relu, even, odd, dx, accumulate)

    def pool(
        self, x: Tensor, is_max: bool, window: Window, statistics: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `Backend.pool`."""
        from hwnas.kernels import _cpu_pool

        return _cpu_pool.pool(x, is_max, window, statistics)

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
        from hwnas.kernels import _cpu_pool

        _cpu_pool.pool_backward(up, index, is_max, window, dx, accumulate)

    def combine(
        self,
        zs: Sequence[Tensor],
        norms: Sequence[Norm | None],
        gates: Tensor | None,
        relu: bool,
    ) -> Tensor:
        """See `Backend.combine`."""
        from hwnas.kernels import _cpu_combine

        return _cpu_combine.combine(zs, norms, gates, relu)

    def combine_backward(
        self,
        gradient: Tensor,
        zs: Sequence[Tensor | None],
        norms: Sequence[Norm | None],
        relu: bool,
    ) -> Tensor:
        """See `Backend.combine_backward`."""
        from hwnas.kernels import _cpu_combine

        return _cpu_combine.combine_backward(gradient, zs, norms, relu)

    def accumulate(self, up: Upstream, dx: Tensor, accumulate: bool) -> None:
        """See `Backend.accumulate`."""
        from hwnas.kernels import _cpu_combine

        _cpu_combine.accumulate(up, dx, accumulate)

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
        from hwnas.kernels import _cpu_rnn

        return _cpu_rnn.rnn_cell(
            x, h0, w_input, w_hidden, edges, previous, activations, edge_index, carry_last
        )

    def rnn_saved_shapes(
        self, steps: int, rows: int, hidden: int, nodes: int
    ) -> Sequence[tuple[int, ...]]:
        """See `Backend.rnn_saved_shapes`: planes in panels, as the kernels read them."""
        from hwnas.kernels import _cpu_rnn

        return [_cpu_rnn.saved_shape(steps, rows, hidden, nodes)]

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
        from hwnas.kernels import _cpu_rnn

        return _cpu_rnn.rnn_cell_backward(
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
