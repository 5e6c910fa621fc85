"""Fused operators: faster ways to run a composite op of `hwnas.graph`, one file an op.

This folder is installed as `hwnas.kernels`. A composite op is defined by its expansion into
primitives, which PyTorch runs: that is the ``reference`` backend, always there. A fused kernel only
replaces that expansion where a backend is ready. There is none yet: `fused` answers None for
every kind of op, and the expansion runs.

The environment variable ``HWNAS_KERNELS`` forces one backend: ``reference``, ``cpu``, ``triton``
or ``cuda``. A backend asked for by name and not ready is an error, never a silent fallback.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hwnas.errors import KernelUnavailable, UserInputError, nearest

__all__ = ["available", "fused"]

_NOT_READY = "no fused kernel is written for it yet"


def available() -> dict[str, str]:
    """Return each backend with ``"ready"`` or the reason why it cannot be used."""
    return {"reference": "ready", "cpu": _NOT_READY, "triton": _NOT_READY, "cuda": _NOT_READY}


def fused(kind: str) -> Callable[..., Any] | None:
    """Return the fused kernel that runs ops of `kind`, or None if their expansion is to run.

    Args:
        kind: Registered name of a composite op, such as ``"sep_conv"``.

    Raises:
        UserInputError: ``HWNAS_KERNELS`` names no backend.
        KernelUnavailable: ``HWNAS_KERNELS`` names a backend that is not ready.
    """
    forced = os.environ.get("HWNAS_KERNELS") or "reference"
    backends = available()
    if forced not in backends:
        raise UserInputError(
            f"HWNAS_KERNELS={forced} names no kernel backend", nearest(forced, backends)
        )
    if backends[forced] != "ready":
        raise KernelUnavailable(
            f"cannot run {kind!r} with HWNAS_KERNELS={forced}: {backends[forced]}",
            "unset HWNAS_KERNELS, or set it to reference",
        )
    return None
