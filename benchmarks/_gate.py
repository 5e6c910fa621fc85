"""No speed is printed for a kernel that computes something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from hwnas import kernels

#: How much larger than eager float32's the median error against float64 may be.
ERROR_RATIO = 2.0
#: Errors are relative to the tensor's root mean square. This much is always allowed, four units in
#: the last place; and this much where there are too few values for a median to say anything.
ROUNDING, ROUNDING_OF_FEW = 5e-7, 1e-5
FEW = 32
#: Tensors with fewer values than these are judged together.
SMALL = 2_000
#: Largest relative difference in the L2 norm. A value that lies on the other side of ReLU's kink,
#: or of a tie of a maximum, than it does in float64 costs up to 1e-3; a wrong kernel costs more.
DIFFERENCE = 1e-2


class Gated(Protocol):
    """What the gate can check."""

    name: str

    def for_gate(self, device: str, dtype: torch.dtype) -> Solvable:
        """Return it in a size that is cheap in float64."""


class Solvable(Protocol):
    """A function with its gradients."""

    def results(self) -> dict[str, torch.Tensor]:
        """Return the output and all gradients."""


def failures(op: Gated, device: str, backend: str) -> list[str]:
    """Compare a backend with float64 and with eager float32; return what is wrong."""
    with kernels.use("reference"):
        truth = op.for_gate(device, torch.float64).results()
        eager = op.for_gate(device, torch.float32).results()
    with kernels.use(backend):
        fused = op.for_gate(device, torch.float32).results()
    return compare(op.name, truth, eager, fused)


def compare(
    name: str,
    truth: Mapping[str, torch.Tensor],
    eager: Mapping[str, torch.Tensor],
    fused: Mapping[str, torch.Tensor],
) -> list[str]:
    """Return one line for each tensor that is further from the truth than it may be."""
    found = []
    errors: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for key, exact in truth.items():
        scale = float(exact.square().mean().sqrt()) or 1.0
        error = ((fused[key].double() - exact).abs() / scale).flatten()
        plain = ((eager[key].double() - exact).abs() / scale).flatten()
        difference = float(error.square().mean().sqrt())
        if not difference <= DIFFERENCE:
            found.append(f"{name}: {key} differs by {difference:.1e} (relative, L2)")
        else:
            group = key if exact.numel() >= SMALL else "small tensors"
            errors.setdefault(group, []).append((error, plain))
    for group, pairs in errors.items():
        error, plain = (torch.cat(each) for each in zip(*pairs, strict=True))
        floor = ROUNDING if len(error) >= FEW else ROUNDING_OF_FEW
        ours, theirs = float(error.median()), float(plain.median())
        if ours > max(ERROR_RATIO * theirs, floor):
            found.append(f"{name}: median error of {group} is {ours:.1e}, eager has {theirs:.1e}")
    return found
