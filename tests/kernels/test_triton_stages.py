"""What is particular to the Triton stages; that they are right is test_stages.py's.

The interpreter must have been chosen before the kernels are defined: conftest.py does so.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hwnas.kernels.backend import Backend, Norm, Window
from hwnas.kernels.backends import backend_named
from hwnas.testing.kernels import Operands, assert_as_exact_as_pytorch, ready

triton = pytest.importorskip("triton", reason="Triton is not installed: pip install hwnas[triton]")

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's numpy


def like(x: Tensor, value: float = torch.nan) -> Tensor:
    return torch.full_like(x, value).contiguous(memory_format=torch.channels_last)


def backward(make: Operands, n: int, c: int, d: int, side: int, window: Window, after: str) -> Any:
    """Operands of a separable stage's backward pass."""
    x = make.image(n, c, side, side)
    z = make.image(n, d, window.size(side), window.size(side))
    weights = (make.vector(c, 1, window.kernel, window.kernel), make.vector(d, c, 1, 1))
    return (make.upstream(z, after), x, make.norm(x, "batch"), *weights, like(x))


def run_backward(window: Window) -> Any:
    def run(backend: Backend, o: Any) -> Any:
        up, x, norm, depthwise, pointwise, dx = o
        found = backend.separable_backward(up, x, norm, window, depthwise, pointwise, dx, False)
        return *found, dx

    return run


def test_more_channels_than_a_block_holds() -> None:
    """Output channels in blocks recompute the rest; input channels come one block after another."""
    window = Window(3)
    operands = backward(Operands(1), 1, 70, 130, 2, window, "batch")
    assert_as_exact_as_pytorch(run_backward(window), ready("triton"), operands)

    def forward(backend: Backend, o: Any) -> Any:
        return backend.separable(o[1], o[2], window, o[3], o[4], True)

    assert_as_exact_as_pytorch(forward, ready("triton"), operands)


def test_more_tiles_than_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that goes through several tiles gives what one for each would."""
    from hwnas.kernels.triton import combine, conv, separable

    window = Window(3)
    for module in (combine, conv, separable):
        monkeypatch.setattr(module, "PROGRAMS", 2)
    operands = backward(Operands(2), 5, 3, 5, 4, window, "batch")
    assert_as_exact_as_pytorch(run_backward(window), ready("triton"), operands)

    def dense(backend: Backend, o: Any) -> Any:
        weight = o[4]
        d_weight = backend.conv_backward(o[0], [o[1]], True, Window(1), weight, [o[5]], [False])
        sums = backend.combine_backward(o[0].gradient, [o[0].z], [o[0].norm], False)
        return d_weight, o[5], sums

    assert_as_exact_as_pytorch(dense, ready("triton"), operands)


def test_a_weight_in_channels_last_memory() -> None:
    make, window = Operands(3), Window(3)
    x, z = make.image(1, 5, 4, 4), make.image(1, 6, 4, 4)
    weight = make.vector(6, 5, 3, 3).contiguous(memory_format=torch.channels_last)

    def run(backend: Backend, o: Any) -> Any:
        up, x, weight, dx = o
        z, _ = backend.conv([x], False, window, weight, False)
        return z, backend.conv_backward(up, [x], False, window, weight, [dx], [False]), dx

    operands = (make.upstream(z, "none"), x, weight, like(x))
    assert_as_exact_as_pytorch(run, ready("triton"), operands)


def test_a_gate_of_zero_reads_nothing() -> None:
    make = Operands(4)
    z = make.image(1, 4, 2, 2)
    gates = torch.tensor([0.0, 2.0])
    y = ready("triton").combine([like(z), z], [None, None], gates, False)
    assert torch.equal(y, 2 * z)


def test_results_are_the_same_again() -> None:
    """Partial sums are added in a fixed order, but for the sums of the input's norm."""
    window = Window(3)
    operands = backward(Operands(5), 3, 4, 4, 5, window, "batch")
    first = run_backward(window)(ready("triton"), operands)
    again = run_backward(window)(ready("triton"), operands)
    assert all(torch.equal(a, b) for a, b in zip(first[:2], again[:2], strict=True))


def meta_operands() -> tuple[Tensor, Norm, Tensor, Tensor]:
    from hwnas.kernels.triton._host import floats, image

    x = image(torch.empty(64, 0, device="meta"), 20, 32, 32)
    norm = Norm(floats(x, 2, 20), x.new_empty(20), x.new_empty(20), 1e-5, True)
    return x, norm, x.new_empty(20, 1, 5, 5), x.new_empty(20, 20, 1, 1)


def test_a_separable_stage_is_two_launches_each_way() -> None:
    from hwnas.kernels.backend import Upstream
    from hwnas.kernels.triton._spec import recording

    x, norm, depthwise, pointwise = meta_operands()
    backend, window = backend_named("triton"), Window(5)
    with recording() as launches:
        _, statistics = backend.separable(x, norm, window, depthwise, pointwise, True)
    assert [each.name for each in launches] == ["separable_forward", "merge_statistics"]
    assert statistics is not None
    up = Upstream(x, x, norm, statistics)
    with recording() as launches:
        backend.separable_backward(up, x, norm, window, depthwise, pointwise, x, False)
    assert [each.name for each in launches] == ["separable_backward", "separable_input"]


def test_fused_kernels_ask_for_little_more_than_their_operands() -> None:
    """Halos of tiles included: at most 1.5 times each operand once."""
    import importlib

    for name in ("separable", "pool", "combine"):
        module = importlib.import_module(f"hwnas.kernels.triton.{name}")
        for spec in module.KERNELS:
            for dtype in spec.dtypes:
                for each in spec.launches(dtype):
                    if each.traffic is not None:
                        ratio = each.traffic.asked / each.traffic.minimum
                        assert ratio <= 1.5, (spec.name, each.name, ratio)


def test_what_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, cpu, cuda = backend_named("triton"), torch.device("cpu"), torch.device("cuda")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backend.unavailable() is None
    assert backend.accepts(cuda, torch.bfloat16)
    assert backend.accepts(cpu, torch.float16)
    assert not backend.accepts(cpu, torch.bfloat16)
    assert not backend.accepts(cuda, torch.float64)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert not backend.accepts(cpu, torch.float32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_why_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "no CUDA device" in (backend_named("triton").unavailable() or "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'hwnas[triton]'" in (backend_named("triton").unavailable() or "")
