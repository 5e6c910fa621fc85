"""Operands for kernel tests, and the measure of their errors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from hwnas.errors import HwnasError
from hwnas.kernels.backend import Backend, Norm, Upstream
from hwnas.kernels.backends import BACKENDS, backend_named
from hwnas.testing.plain_stages import PlainBackend

BACKENDS.register("plain")(PlainBackend)
PLAIN = PlainBackend()

#: Backends that can run on this machine's CPU; a CUDA build is run there by test_cuda_host.py.
ON_CPU = ("cpu", "triton")
ON_GPU = ("triton", "cuda")


def ready(name: str) -> Backend:
    """Return a backend, or skip the test with the reason why it cannot run."""
    try:
        backend = backend_named(name)
    except (HwnasError, ImportError) as error:
        pytest.skip(str(error))
    reason = backend.unavailable()
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    return backend


@dataclass
class Operands:
    """Draws operands, always the same for the same seed."""

    seed: int = 0
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    def vector(self, *shape: int, wide: bool = False) -> Tensor:
        """Standard normal values; float32 if `wide`, whatever the dtype."""
        x = torch.randn(shape, generator=self._generator)
        return x if wide else x.to(self.dtype)

    def image(self, n: int, c: int, h: int, w: int) -> Tensor:
        """Values away from 0, where the ReLU's mask would depend on the last bit."""
        x = torch.randn((n, c, h, w), generator=self._generator)
        x = torch.where(x >= 0, x + 0.1, x - 0.1).to(self.dtype)
        return x.contiguous(memory_format=torch.channels_last)

    def norm(self, z: Tensor, kind: str) -> Norm | None:
        """A norm of z: ``batch`` (its own statistics), ``eval`` (others) or ``none``."""
        if kind == "none":
            return None
        c = z.shape[1]
        scale, shift = 1 + 0.3 * self.vector(c), 0.3 * self.vector(c)
        if kind == "batch" and z.shape[0]:
            wide = z.double()
            pair = [wide.mean((0, 2, 3)), wide.var((0, 2, 3), unbiased=False)]
            statistics = torch.stack(pair).float()
        else:
            statistics = torch.stack(
                [self.vector(c, wide=True), 0.5 + self.vector(c, wide=True) ** 2]
            )
        return Norm(statistics, scale.to(self.dtype), shift.to(self.dtype), 1e-5, kind == "batch")

    def upstream(
        self, z: Tensor, kind: str, *, gated: bool = False, relu: bool = False
    ) -> Upstream:
        """A gradient of what follows z, with the sums that belong to it."""
        gradient = self.image(*z.shape)
        norm = self.norm(z, kind)
        sums = None
        if norm is not None:
            wide = to_wide((gradient, z, norm))
            sums = PLAIN.combine_backward(wide[0], [wide[1]], [wide[2]], relu)[0].float()
        gates = self.vector(3) if gated else None
        return Upstream(gradient, z, norm, sums, gates, 1, relu)


def _convert(value: Any, to: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return to(value)
    if isinstance(value, list | tuple):
        return type(value)(_convert(each, to) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        made = {f.name: _convert(getattr(value, f.name), to) for f in fields(value)}
        return type(value)(**made)
    return value


def to_wide(value: Any) -> Any:
    """The same operands in float64; indices stay."""
    return _convert(value, lambda t: t.double() if t.is_floating_point() else t)


def _parts(value: Any) -> Any:
    """The same with dataclasses taken apart."""
    if is_dataclass(value) and not isinstance(value, type):
        return [_parts(getattr(value, field.name)) for field in fields(value)]
    return [_parts(each) for each in value] if isinstance(value, list | tuple) else value


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_of(each)


def error(found: Tensor, exact: Tensor) -> float:
    """Relative error in the Euclidean norm."""
    if not exact.numel():
        return 0.0
    difference = (found.double() - exact).norm()
    return float(difference / exact.norm().clamp_min(1e-30))


def assert_as_exact_as_pytorch(
    run: Callable[[Backend, Any], Any], backend: Backend, operands: Any, names: Sequence[str] = ()
) -> None:
    """Require at most twice the error of plain PyTorch in the same dtype, against float64.

    `run` gets a backend and its own copy of the operands and returns tensors.
    """
    exact = list(tensors_of(run(PLAIN, to_wide(copy.deepcopy(operands)))))
    plain = list(tensors_of(run(PLAIN, copy.deepcopy(operands))))
    found = list(tensors_of(run(backend, copy.deepcopy(operands))))
    assert len(found) == len(exact)
    floats = [each for each in tensors_of(_parts(operands)) if each.is_floating_point()]
    narrowest = max(torch.finfo(each.dtype).eps for each in floats)
    for place, (f, p, e) in enumerate(zip(found, plain, exact, strict=True)):
        name = names[place] if place < len(names) else f"result {place}"
        assert f.shape == e.shape, name
        if not f.is_floating_point():
            assert torch.equal(f, e), name
            continue
        assert torch.isfinite(f).all(), f"{name} is not finite"
        # Two roundings of an activation are always allowed: a sum of one value has no error.
        floor = 2 * max(torch.finfo(f.dtype).eps, narrowest)
        assert error(f, e) <= 2 * error(p, e) + floor, (
            f"{name}: error {error(f, e):.2e}, plain PyTorch's {error(p, e):.2e}"
        )
