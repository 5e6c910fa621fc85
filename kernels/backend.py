"""What a kernel backend promises: fused stages, out of which every composite op is put together.

A *stage* is one pass from activation to activation. It applies the batch norm (and ReLU) of the
stage before it while it reads, and returns `z`, its values before its own norm, with the
statistics of `z`. No norm is ever a pass of its own; the last one is applied by `combine`, which
also sums branches. Backward works alike: the gradient of `z` is computed from that of the norm's
output while it is read (`Upstream`).

Images are logical `[N, C, H, W]` tensors in channels_last layout (NHWC in memory), contiguous in
it. `C`, `H`, `W` belong to a stage's input, `D` (channels), `P`, `Q` (height, width) to its output.
Statistics, sums, and gradients of norms are float32 whatever the activations are.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hwnas.kernels.plan import Plan


#: Larger windows run by their expansion: the index of a max pool is a byte.
LARGEST_KERNEL = 15


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window with padding ``dilation * (kernel - 1) // 2`` on each side.

    Attributes:
        kernel: Height and width.
        stride: Step in both directions.
        dilation: Distance between taps.
    """

    kernel: int
    stride: int = 1
    dilation: int = 1

    @property
    def padding(self) -> int:
        """Rows and columns of zeros on each side."""
        return self.dilation * (self.kernel - 1) // 2

    def size(self, side: int) -> int:
        """Return the output's height (width) for an input's."""
        reach = self.dilation * (self.kernel - 1) + 1
        return (side + 2 * self.padding - reach) // self.stride + 1


@dataclass(frozen=True, slots=True)
class Norm:
    """A batch norm that is applied by whoever reads: ``scale * zhat + shift``.

    ``zhat = (z - mean) / sqrt(variance + epsilon)``.

    Attributes:
        statistics: `[2, C]` float32: mean and biased variance.
        scale: `[C]`.
        shift: `[C]`.
        epsilon: Added to the variance.
        is_batch: The statistics are those of this very batch, so they pass gradients on.
    """

    statistics: Tensor
    scale: Tensor
    shift: Tensor
    epsilon: float
    is_batch: bool


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a stage's gradient comes from: ``y = gate * [relu](norm(z))`` and the gradient of `y`.

    With g = gradient, zeroed where `relu` is set and norm(z) <= 0, and a = scale / sqrt(variance +
    epsilon):

    - norm.is_batch: ``dz = gate * a * (g - sums[0] / n - zhat * sums[1] / n)``, n = N * P * Q;
    - another norm: ``dz = gate * a * g``; no norm: ``dz = gate * g``.

    Attributes:
        gradient: `[N, D, P, Q]` gradient of `y`.
        z: `[N, D, P, Q]` what the stage returned; may be None where norm is None.
        norm: The norm behind the stage.
        sums: `[2, D]` float32, sums of g and of g * zhat over the batch, without the gate; from
            `combine_backward` or a later stage's backward. None where norm is None.
        gates: `[B]` gates of the sum that `y` goes into, or None for 1.
        branch: Which of `gates` is this stage's.
        relu: Whether a ReLU follows the norm.
    """

    gradient: Tensor
    z: Tensor | None
    norm: Norm | None
    sums: Tensor | None
    gates: Tensor | None = None
    branch: int = 0
    relu: bool = False


class Backend(ABC):
    """Fused stages on one kind of device.

    Every tensor that is passed in is left as it was, except `dx`, which receives a gradient: added
    to what it holds if `accumulate`, else overwritten.
    """

    name: ClassVar[str]
    #: Order in which backends that accept the same tensors are preferred, lowest first.
    preference: ClassVar[int] = 0

    @abstractmethod
    def unavailable(self) -> str | None:
        """Return why this backend cannot run here, or None if it can."""

    @abstractmethod
    def accepts(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Return whether tensors of this kind can be run."""

    def offers(self, plan: Plan | None) -> bool:
        """Return whether all stages of a plan are there (of the recurrent cell: None)."""
        return plan is None or all(
            branch.kernel % 2 == 1 and branch.kernel <= LARGEST_KERNEL for branch in plan.branches
        )

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Return a ``with`` block in which stages may be held back, to run one behind the other.

        Inside, results are for other stages only, until `catch_up` or the end.
        """
        return contextlib.nullcontext()

    def catch_up(self) -> None:  # noqa: B027 - nothing is held back by default
        """Run what `together` holds back."""

    @abstractmethod
    def empty(self, like: Tensor, channels: int, height: int, width: int) -> Tensor:
        """Return an uninitialised `[N, channels, height, width]` activation, channels_last."""

    # -- separable convolution ---------------------------------------------------------------

    @abstractmethod
    def separable(
        self,
        x: Tensor,
        norm: Norm | None,
        window: Window,
        depthwise: Tensor,
        pointwise: Tensor,
        statistics: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return ``pointwise(depthwise(relu(norm(x))))``; padding is added after the ReLU.

        Args:
            x: `[N, C, H, W]`.
            norm: The norm that `x` still lacks, if any.
            window: Of the depthwise convolution.
            depthwise: `[C, 1, k, k]`.
            pointwise: `[D, C, 1, 1]`.
            statistics: Whether the statistics of `z` are wanted.

        Returns:
            `z` `[N, D, P, Q]` and its `[2, D]` mean and biased variance (or None).
        """

    @abstractmethod
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
        """Gradients of `separable`.

        `dx` receives the gradient of ``norm(x)``, masked by the ReLU: with a norm, it is the
        `gradient` of the next `Upstream`, whose `sums` are returned here.

        Returns:
            Gradients of `depthwise` and `pointwise`, and `[2, C]` sums of du and du * xhat over
            the batch, where du is what `dx` received in this call (None without a norm).
        """

    # -- dense convolution -------------------------------------------------------------------

    @abstractmethod
    def conv(
        self,
        xs: Sequence[Tensor],
        relu: bool,
        window: Window,
        weight: Tensor,
        statistics: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Convolve ``[relu](concat(xs))`` without writing the concatenation.

        Args:
            xs: One image tensor, or several of one size where the kernel is 1×1.
            relu: Whether a ReLU comes first.
            window: Any odd kernel, any stride, any dilation.
            weight: `[D, sum of C, k, k]`.
            statistics: Whether the statistics of `z` are wanted.

        Returns:
            `z` and its statistics (or None).
        """

    @abstractmethod
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
        """Return the gradient of `weight`; a dx that is None is not wanted."""

    @abstractmethod
    def reduction(
        self, x: Tensor, relu: bool, even: Tensor, odd: Tensor, statistics: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Factorised reduction: two 1×1 convolutions of stride two, side by side.

        The first half of the output channels is `even` applied to the pixels (2i, 2j), the second
        is `odd` applied to (2i + 1, 2j + 1), zero where that lies outside.

        Args:
            x: `[N, C, H, W]`.
            relu: Whether a ReLU comes first.
            even: `[D / 2, C, 1, 1]`.
            odd: `[D / 2, C, 1, 1]`.
            statistics: Whether the statistics of `z` are wanted.

        Returns:
            `z` `[N, D, ceil(H / 2), ceil(W / 2)]` and its statistics (or None).
        """

    @abstractmethod
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
        """Return the gradients of `even` and `odd`."""

    # -- pooling -----------------------------------------------------------------------------

    @abstractmethod
    def pool(
        self, x: Tensor, is_max: bool, window: Window, statistics: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Max or average pooling; padding is never counted, and never the maximum.

        Returns:
            `z`; for a maximum, `[N, C, P, Q]` uint8 index of the tap that won (row-major, the
            first of equal ones, NaN wins, as in PyTorch), else None; statistics (or None).
        """

    @abstractmethod
    def pool_backward(
        self,
        up: Upstream,
        index: Tensor | None,
        is_max: bool,
        window: Window,
        dx: Tensor,
        accumulate: bool,
    ) -> None:
        """Write the gradient of `x` into `dx`."""

    # -- epilogue ----------------------------------------------------------------------------

    @abstractmethod
    def combine(
        self,
        zs: Sequence[Tensor],
        norms: Sequence[Norm | None],
        gates: Tensor | None,
        relu: bool,
    ) -> Tensor:
        """``y = sum over b of gates[b] * norm_b(z_b)``; with `relu`, each norm_b is rectified.

        Args:
            zs: One tensor a branch, all `[N, D, P, Q]`; at least one.
            norms: The norm that each still lacks, if any.
            gates: `[B]`, or None for ones.
            relu: Whether a ReLU follows each norm.
        """

    @abstractmethod
    def combine_backward(
        self,
        gradient: Tensor,
        zs: Sequence[Tensor | None],
        norms: Sequence[Norm | None],
        relu: bool,
    ) -> Tensor:
        """Sums that the norms' (and gates') gradients need, in one pass over all branches.

        Returns:
            `[B, 2, D]` float32: sum of g, and sum of g * zhat_b (of g * z_b without a norm), where
            g is the gradient, zeroed where `relu` is set and norm_b(z_b) <= 0. Where z_b is None,
            its second row is not wanted and undefined.
        """

    @abstractmethod
    def accumulate(self, up: Upstream, dx: Tensor, accumulate: bool) -> None:
        """Write ``dz`` of `up` into `dx`: the backward pass of a branch that does nothing."""

    # -- recurrent cell ----------------------------------------------------------------------

    @abstractmethod
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
        """Run M sampled ENAS recurrent cells over T steps; see `hwnas.kernels.rnn_cell`.

        Args:
            x: `[T, M * B, E]`, the rows of cell m are m * B to (m + 1) * B.
            h0: `[M * B, H]`.
            w_input: `[2 * H, E]`: highway gate rows, then node rows.
            w_hidden: `[2 * H, H]`, likewise.
            edges: Matrices `[2 * H, H]` that some cell uses.
            previous: M lists of K - 1 node numbers: `previous[m][j - 1]` < j feeds node j.
            activations: M lists of K of 0 tanh, 1 ReLU, 2 identity, 3 sigmoid.
            edge_index: M lists of K - 1: which of `edges` node j of cell m uses.
            carry_last: The next step sees the last node's state instead of the leaves' average.

        Returns:
            `[T, M * B, H]` averages of the leaves, `[M * B, H]` the carried state after the last
            step, and whatever the backward pass needs: tensors of x's dtype in the shapes of
            `rnn_saved_shapes`.
        """

    @abstractmethod
    def rnn_saved_shapes(
        self, steps: int, rows: int, hidden: int, nodes: int
    ) -> Sequence[tuple[int, ...]]:
        """Return the shapes of what `rnn_cell` saves, for tracing without running.

        Args:
            steps: T.
            rows: M * B.
            hidden: H.
            nodes: K.
        """

    @abstractmethod
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
        """Return the gradients of x, h0, w_input, w_hidden and each of `edges`."""
