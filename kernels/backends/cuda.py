"""Stages in CUDA C++ (`csrc/cuda`): the separable stage, the epilogue and the recurrent cell.

The other stages are Triton's, where Triton is there. Kernels run on the current stream of the
tensors' device and nothing waits for them; gates stay on the device.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hwnas.errors import KernelUnavailable, UserInputError
from hwnas.kernels.backend import Backend, Norm, Upstream, Window
from hwnas.kernels.backends import BACKENDS, backend_named

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hwnas.kernels.plan import Plan

#: Stages that csrc/cuda has kernels for.
OWN_STAGES = frozenset({"separable", "combine", "accumulate", "rnn"})
_OTHER_STAGES = frozenset({"conv", "reduction", "pool"})
_STAGE_OF = {"max_pool": "pool", "avg_pool": "pool", "identity": "accumulate"}


@functools.cache
def _compiled() -> Any:
    """Return hwnas._cuda, or None where hwnas was built without nvcc."""
    try:
        return importlib.import_module("hwnas._cuda")
    except ImportError:
        return None


@functools.cache
def _fits(module: Any, window: Window) -> bool:
    """Return whether a separable stage's blocks fit into shared memory for any operands."""
    # float32 and more than 16 channels take most, and the smallest tile is that of one pixel.
    sizes = (1, 64, 1, 1, 64, 1, 1, window.kernel, window.stride, window.dilation)
    try:
        module.separable_workspace("float32", sizes)
        module.separable_backward_workspace("float32", sizes)
    except ValueError:
        return False
    return True


@functools.cache
def _triton() -> Backend | None:
    """Return the Triton backend, or None where it cannot run."""
    try:
        backend = backend_named("triton")
    except (ImportError, UserInputError):
        return None
    return backend if backend.unavailable() is None else None


@BACKENDS.register("cuda")
class CudaBackend(Backend):
    """CUDA C++ kernels for float32, float16 and bfloat16 on NVIDIA GPUs from sm_80 on.

    Args:
        module: What runs instead of `hwnas._cuda`: tests pass the same sources built for the CPU.
    """

    name: ClassVar[str] = "cuda"
    preference: ClassVar[int] = 2

    def __init__(self, module: Any = None) -> None:
        self._given = module

    @property
    def module(self) -> Any:
        """The compiled functions.

        Raises:
            KernelUnavailable: They are not there, or have no device to run on.
        """
        if self._given is not None:
            return self._given
        reason = self.unavailable()
        if reason is not None:
            raise KernelUnavailable(
                f"the CUDA kernels cannot run: {reason}",
                "unset HWNAS_KERNELS, or set it to cpu or reference",
            )
        return _compiled()

    def unavailable(self) -> str | None:
        """Return why no CUDA kernel can run here, or None."""
        if self._given is not None:
            return None
        return _problem()

    def accepts(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Return whether tensors are float32, float16 or bfloat16 on a CUDA device."""
        import torch

        kind = "cuda" if self._given is None else "cpu"
        return device.type == kind and dtype in {torch.float32, torch.float16, torch.bfloat16}

    def offers(self, plan: Plan | None) -> bool:
        """Return whether all stages of a plan are there (of the recurrent cell: None).

        A separable stage is not where its window could be too large for a block's shared memory.
        """
        if plan is None or not super().offers(plan):
            return plan is None
        module = self._given or _compiled()
        for branch in plan.branches:
            if not self.offers_stage(_STAGE_OF.get(branch.kind, branch.kind)):
                return False
            if branch.kind == "separable" and module is not None:
                windows = {branch.window(stage) for stage in range(branch.stages)}
                if not all(_fits(module, window) for window in windows):
                    return False
        return True

    def offers_stage(self, stage: str) -> bool:
        """Return whether a stage can run, here or by way of Triton.

        Args:
            stage: ``separable``, ``combine``, ``accumulate``, ``rnn``, ``conv``, ``reduction`` or
                ``pool``.
        """
        if stage in OWN_STAGES:
            return True
        return stage in _OTHER_STAGES and self._given is None and _triton() is not None

    def empty(self, like: Tensor, channels: int, height: int, width: int) -> Tensor:
        """Return an uninitialised activation from PyTorch's own allocator."""
        import torch

        return torch.empty(
            (like.shape[0], channels, height, width),
            dtype=like.dtype,
            device=like.device,
            memory_format=torch.channels_last,
        )

    # -- separable convolution ---------------------------------------------------------------

    def separable(
        self,
        x: Tensor,
        norm: Norm | None,
        window: Window,
        depthwise: Tensor,
        pointwise: Tensor,
        statistics: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """See `Backend.separable`: two launches, one without statistics."""
        from hwnas.kernels import _cuda_stages

        with _device_of(x):
            return _cuda_stages.separable(
                self.module, x, norm, window, depthwise, pointwise, statistics
            )

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
        """See `Backend.separable_backward`: two launches."""
        from hwnas.kernels import _cuda_stages

        with _device_of(x):
            return _cuda_stages.separable_backward(
                self.module, up, x, norm, window, depthwise, pointwise, dx, accumulate
            )

    # -- epilogue ----------------------------------------------------------------------------

    def combine(
        self,
        zs: Sequence[Tensor],
        norms: Sequence[Norm | None],
        gates: Tensor | None,
        relu: bool,
    ) -> Tensor:
        """See `Backend.combine`: a launch for every eight branches."""
        from hwnas.kernels import _cuda_stages

        with _device_of(zs[0]):
            return _cuda_stages.combine(self.module, zs, norms, gates, relu)

    def combine_backward(
        self,
        gradient: Tensor,
        zs: Sequence[Tensor | None],
        norms: Sequence[Norm | None],
        relu: bool,
    ) -> Tensor:
        """See `Backend.combine_backward`: two launches for every eight branches."""
        from hwnas.kernels import _cuda_stages

        with _device_of(gradient):
            return _cuda_stages.combine_backward(self.module, gradient, zs, norms, relu)

    def accumulate(self, up: Upstream, dx: Tensor, accumulate: bool) -> None:
        """See `Backend.accumulate`."""
        from hwnas.kernels import _cuda_stages

        with _device_of(dx):
            _cuda_stages.accumulate(self.module, up, dx, accumulate)

    # -- recurrent cell ----------------------------------------------------------------------

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
        """See `Backend.rnn_cell`: products by cuBLAS, a launch a node and step."""
        from hwnas.kernels import _cuda_rnn

        cells = _cuda_rnn.Cells(previous, activations, edge_index, carry_last)
        with _device_of(x):
            return _cuda_rnn.forward(self.module, cells, x, h0, w_input, w_hidden, edges)

    def rnn_saved_shapes(
        self, steps: int, rows: int, hidden: int, nodes: int
    ) -> Sequence[tuple[int, ...]]:
        """See `Backend.rnn_saved_shapes`: states, gates and values of nodes."""
        values = (steps, nodes, rows, hidden)
        return [(steps, nodes + 1, rows, hidden), values, values]

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
        from hwnas.kernels import _cuda_rnn

        cells = _cuda_rnn.Cells(previous, activations, edge_index, carry_last)
        with _device_of(x):
            return _cuda_rnn.backward(
                self.module, cells, d_output, d_state, saved, x, w_input, w_hidden, edges
            )

    # -- Triton's ----------------------------------------------------------------------------

    def _other(self) -> Backend:
        backend = _triton() if self._given is None else None
        if backend is None:
            raise KernelUnavailable(
                "csrc/cuda has no kernel for this stage, and Triton cannot run here",
                "pip install 'hwnas[triton]', or unset HWNAS_KERNELS",
            )
        return backend

    def conv(
        self, xs: Sequence[Tensor], relu: bool, window: Window, weight: Tensor, statistics: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `Backend.conv`; by Triton."""
        return self._other().conv(xs, relu, window, weight, statistics)

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
        """See `Backend.conv_backward`; by Triton."""
        return self._other().conv_backward(up, xs, relu, window, weight, dxs, accumulate)

    def reduction(
        self, x: Tensor, relu: bool, even: Tensor, odd: Tensor, statistics: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `Backend.reduction`; by Triton."""
        return self._other().reduction(x, relu, even, odd, statistics)

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
        """See `Backend.reduction_backward`; by Triton."""
        return self._other().reduction_backward(up, x, relu, even, odd, dx, accumulate)

    def pool(
        self, x: Tensor, is_max: bool, window: Window, statistics: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `Backend.pool`; by Triton."""
        return self._other().pool(x, is_max, window, statistics)

    def pool_backward(
        self,
        up: Upstream,
        index: Tensor | None,
        is_max: bool,
        window: Window,
        dx: Tensor,
        accumulate: bool,
    ) -> None:
        """See `Backend.pool_backward`; by Triton."""
        self._other().pool_backward(up, index, is_max, window, dx, accumulate)


@functools.cache
def _problem() -> str | None:
    compiled = _compiled()
    if compiled is None:
        return "hwnas was built without nvcc (hwnas._cuda is missing)"
    problem: str | None = compiled.device_problem()
    if problem is not None:
        return f"no CUDA device: {problem}"
    import torch

    if not torch.cuda.is_available():
        return "PyTorch was installed without CUDA"
    if torch.cuda.get_device_capability() < (8, 0):
        return f"{torch.cuda.get_device_name()} is older than sm_80"
    return None


def _device_of(x: Tensor) -> contextlib.AbstractContextManager[object]:
    import torch

    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
