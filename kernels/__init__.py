"""Fused operators: faster ways to run an op of `hwnas.graph`.

This folder is installed as `hwnas.kernels`. A composite op is defined by its expansion into
primitives, which PyTorch runs: that is the ``reference``, always there. An op that can be fused
says so (`Op.fused`) with a plan of branches (plan.py); its forward and backward passes are put
together (stages.py) from the stages of a backend (backend.py). Neighbouring ops run as one step of
autograd (region.py); each is an operator of `torch.library` too (mixed_op.py, rnn_cell.py). A
backend is one file in backends/.

The environment variable ``HWNAS_KERNELS`` forces a choice: ``reference``, ``cpu``, ``triton`` or
``cuda``. A backend asked for by name that cannot run is an error, never a silent fallback. Ops,
devices and dtypes that a backend does not offer run by their expansion.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hwnas.errors import KernelUnavailable, UserInputError, nearest
from hwnas.kernels.backends import BACKENDS, backend_for, backend_named

if TYPE_CHECKING:
    import torch

    from hwnas.kernels.backend import Backend

__all__ = ["available", "chosen", "forced", "use"]

_REFERENCE = "reference"
_forced: contextvars.ContextVar[str | None] = contextvars.ContextVar("forced", default=None)


def available() -> dict[str, str]:
    """Return each backend with ``"ready"`` or the reason why it cannot be used."""
    return {
        _REFERENCE: "ready",
        **{name: backend_named(name).unavailable() or "ready" for name in BACKENDS.names()},
    }


def forced() -> str | None:
    """Return the backend that `use` or HWNAS_KERNELS asks for, or None.

    Raises:
        UserInputError: HWNAS_KERNELS names no backend.
        KernelUnavailable: It names a backend that cannot run here.
    """
    inside = _forced.get()
    if inside is not None:
        return inside
    name = os.environ.get("HWNAS_KERNELS") or None
    if name is not None:
        _check(name)
    return name


def chosen(device: torch.device, dtype: torch.dtype) -> Backend | None:
    """Return the backend that runs such tensors, or None for the reference.

    Raises:
        UserInputError: HWNAS_KERNELS names no backend.
        KernelUnavailable: It names a backend that cannot run here.
    """
    name = forced()
    return None if name == _REFERENCE else backend_for(device, dtype, name)


@contextlib.contextmanager
def use(name: str | None) -> Iterator[None]:
    """Force a backend inside a ``with`` block; None leaves the choice to hwnas.

    The choice is this thread's: threads that are started inside do not inherit it.

    Raises:
        UserInputError: `name` is no backend.
        KernelUnavailable: The backend cannot run here.
    """
    if name is not None:
        _check(name)
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def _check(name: str) -> None:
    if name == _REFERENCE:
        return
    names = [_REFERENCE, *BACKENDS.names()]
    if name not in names:
        raise UserInputError(f"HWNAS_KERNELS={name} names no kernel backend", nearest(name, names))
    reason = backend_named(name).unavailable()
    if reason is not None:
        raise KernelUnavailable(
            f"cannot run with HWNAS_KERNELS={name}: {reason}",
            "unset HWNAS_KERNELS, or set it to reference",
        )
