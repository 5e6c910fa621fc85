"""The backends: one file each, found by the registry."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from hwnas.errors import KernelUnavailable
from hwnas.kernels.backend import Backend
from hwnas.registry import Registry

if TYPE_CHECKING:
    import torch

BACKENDS: Registry[Backend] = Registry("kernel backend", "hwnas.kernels.backends")


@functools.cache
def backend_named(name: str) -> Backend:
    """Return a backend, ready or not.

    Raises:
        UserInputError: No backend has that name.
    """
    return BACKENDS.get(name)()


def backend_for(
    device: torch.device, dtype: torch.dtype, name: str | None = None
) -> Backend | None:
    """Return the backend that runs such tensors, or None if none does.

    Args:
        device: Of the tensors.
        dtype: Of the tensors.
        name: The one that is asked for; else the first in order of preference.

    Raises:
        KernelUnavailable: The backend asked for cannot run here.
    """
    if name is not None:
        backend = backend_named(name)
        reason = backend.unavailable()
        if reason is not None:
            raise KernelUnavailable(
                f"cannot run with HWNAS_KERNELS={name}: {reason}",
                "unset HWNAS_KERNELS, or set it to reference",
            )
        return backend if backend.accepts(device, dtype) else None
    for _, cls in sorted(BACKENDS.items(), key=lambda item: (item[1].preference, item[0])):
        backend = backend_named(cls.name)
        if backend.accepts(device, dtype) and backend.unavailable() is None:
            return backend
    return None
