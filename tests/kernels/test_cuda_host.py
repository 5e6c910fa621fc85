"""The CUDA kernels, run on the CPU by the host shim, against plain PyTorch in float64.

Each is built once a session. The slow tests run this file again under the address and the
undefined behaviour sanitizer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hwnas.kernels.backend import Backend, Upstream, Window
from hwnas.kernels.backends.cuda import CudaBackend
from hwnas.kernels.plan import Branch, Plan
from hwnas.testing.kernels import Operands, assert_as_exact_as_pytorch, error

sys.path.insert(0, str(Path(__file__).parent))
import cuda_host

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
#: What runs under sanitizers: every kernel and every ragged edge in float32, and once in float16
#: where the channels fill no pack. Addresses do not depend on the rest.
SANITIZED = (
    "not bfloat16 and (large_mean or empty_batch or more_cells or gone or shim_notices"
    " or (separable and float32 and not 2-72-136 and not 24-40)"
    " or (separable and float16 and 17-3-7)"
    " or (combine and True-False-9-17) or (combine and False-True-1 and float32)"
    " or accumulate"
    " or rnn)"
)
MISTAKES = ("block_barrier", "warp_barrier", "early_exit", "shared_memory")


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The kernels, compiled for the CPU."""
    built = os.environ.get(cuda_host.BUILT)
    return cuda_host.load(
        Path(built) if built else cuda_host.build(tmp_path_factory.mktemp("cuda"))
    )


@pytest.fixture
def backend(module: Any) -> CudaBackend:
    """The backend on the shim."""
    return CudaBackend(module)


def target(x: Tensor, accumulate: bool) -> Tensor:
    made = torch.full_like(x, 0.5 if accumulate else torch.nan)
    return made.contiguous(memory_format=torch.channels_last)


#: Batch, input and output channels, height, width, kernel, stride, dilation; norms before, behind.
SEPARABLE = [
    (2, 16, 16, 8, 8, 3, 1, 1, "batch", "batch"),
    (1, 3, 17, 6, 5, 3, 2, 1, "none", "eval"),
    (3, 17, 3, 7, 8, 3, 1, 2, "eval", "batch"),
    (1, 1, 1, 1, 1, 3, 1, 1, "none", "none"),
    (1, 8, 8, 5, 6, 7, 1, 1, "batch", "none"),
    (2, 8, 8, 9, 9, 5, 2, 2, "eval", "eval"),
    (2, 20, 20, 9, 7, 5, 1, 1, "none", "batch"),
    (1, 80, 72, 8, 8, 5, 1, 1, "batch", "batch"),
    (2, 72, 136, 4, 5, 3, 1, 1, "batch", "batch"),
    (1, 24, 40, 17, 33, 3, 2, 1, "batch", "eval"),
]


@each_dtype
@pytest.mark.parametrize("case", SEPARABLE, ids=lambda c: "-".join(map(str, c)))
def test_separable(backend: Backend, dtype: torch.dtype, case: tuple[Any, ...]) -> None:
    n, c, d, h, w, k, stride, dilation, norm, _ = case
    make = Operands(1, dtype)
    x = make.image(n, c, h, w)
    operands = (x, make.norm(x, norm), make.vector(c, 1, k, k), make.vector(d, c, 1, 1))

    def run(backend: Backend, o: Any) -> Any:
        return backend.separable(o[0], o[1], Window(k, stride, dilation), o[2], o[3], True)

    assert_as_exact_as_pytorch(run, backend, operands, ["z", "statistics"])


@each_dtype
@pytest.mark.parametrize("case", SEPARABLE, ids=lambda c: "-".join(map(str, c)))
def test_separable_backward(backend: Backend, dtype: torch.dtype, case: tuple[Any, ...]) -> None:
    n, c, d, h, w, k, stride, dilation, norm, after = case
    make, window = Operands(2, dtype), Window(k, stride, dilation)
    x = make.image(n, c, h, w)
    z = make.image(n, d, window.size(h), window.size(w))
    up = make.upstream(z, after, gated=norm == "none", relu=after == "eval")
    accumulate = norm == "eval"
    weights = (make.vector(c, 1, k, k), make.vector(d, c, 1, 1))
    operands = (up, x, make.norm(x, norm), *weights, target(x, accumulate))

    def run(backend: Backend, o: Any) -> Any:
        d_depthwise, d_pointwise, sums = backend.separable_backward(
            o[0], o[1], o[2], window, o[3], o[4], o[5], accumulate
        )
        return d_depthwise, d_pointwise, o[5], [] if sums is None else sums

    assert_as_exact_as_pytorch(run, backend, operands, ["d_depthwise", "d_pointwise", "dx", "sums"])


@each_dtype
@pytest.mark.parametrize("channels", [1, 3, 16, 17, 72])
@pytest.mark.parametrize("kinds", [("batch",), ("batch", "eval", "none") * 3], ids=len)
@pytest.mark.parametrize(("gated", "relu"), [(True, False), (False, True)])
def test_combine(
    backend: Backend,
    dtype: torch.dtype,
    channels: int,
    kinds: tuple[str, ...],
    gated: bool,
    relu: bool,
) -> None:
    make = Operands(7, dtype)
    zs = [make.image(2, channels, 5, 7) for _ in kinds]
    norms = [make.norm(z, kind) for z, kind in zip(zs, kinds, strict=True)]
    gates = make.vector(len(kinds)) if gated else None
    operands = (zs, norms, gates, make.image(2, channels, 5, 7))

    def run(backend: Backend, o: Any) -> Any:
        return backend.combine(*o[:3], relu), backend.combine_backward(o[3], o[0], o[1], relu)

    assert_as_exact_as_pytorch(run, backend, operands, ["y", "sums"])


def test_sums_of_a_branch_whose_values_are_gone(module: Any) -> None:
    make = Operands(3)
    gradient = make.image(2, 5, 3, 3)
    sums = CudaBackend(module).combine_backward(gradient, [None], [None], False)
    torch.testing.assert_close(sums[0, 0], gradient.sum((0, 2, 3)))


@each_dtype
@pytest.mark.parametrize("kind", ["none", "batch", "eval"])
@pytest.mark.parametrize(("channels", "accumulate", "relu"), [(13, True, False), (16, False, True)])
def test_accumulate(
    backend: Backend,
    dtype: torch.dtype,
    kind: str,
    channels: int,
    accumulate: bool,
    relu: bool,
) -> None:
    make = Operands(8, dtype)
    z = make.image(2, channels, 3, 5)
    operands = (make.upstream(z, kind, gated=True, relu=relu), target(z, accumulate))

    def run(backend: Backend, o: Any) -> Any:
        backend.accumulate(o[0], o[1], accumulate)
        return o[1]

    assert_as_exact_as_pytorch(run, backend, operands, ["dx"])


@pytest.mark.parametrize(("kernel", "dilation"), [(11, 1), (7, 3), (3, 11)])
def test_the_largest_windows_that_are_offered_run(
    backend: CudaBackend, kernel: int, dilation: int
) -> None:
    assert backend.offers(separable_plan(kernel, dilation))
    make, window = Operands(14), Window(kernel, 1, dilation)
    x, up = make.image(1, 20, 6, 6), make.upstream(make.image(1, 3, 6, 6), "none")
    weights = (make.vector(20, 1, kernel, kernel), make.vector(3, 20, 1, 1))
    z, _ = backend.separable(x, None, window, *weights, False)
    padding = dilation * (kernel - 1) // 2
    t = functional.conv2d(x.relu(), weights[0], None, 1, padding, dilation, 20)
    torch.testing.assert_close(z, functional.conv2d(t, weights[1]))
    backend.separable_backward(up, x, None, window, *weights, torch.empty_like(x), False)


@pytest.mark.parametrize(("kernel", "dilation"), [(13, 1), (15, 1), (9, 3), (3, 12)])
def test_windows_too_large_for_shared_memory_are_not_offered(
    backend: CudaBackend, kernel: int, dilation: int
) -> None:
    assert not backend.offers(separable_plan(kernel, dilation))


def separable_plan(kernel: int, dilation: int) -> Plan:
    """A plan of one separable branch."""
    return Plan((Branch("separable", kernel=kernel, dilation=dilation),))


def test_statistics_survive_a_large_mean(module: Any) -> None:
    """E[z²] − E[z]² would lose all digits of a variance of 1 beside a mean of 1,000."""
    make = Operands(9)
    x = make.image(4, 16, 8, 8) + 1e3
    operands = (x, torch.ones(16, 1, 1, 1), torch.eye(16).view(16, 16, 1, 1))
    assert_as_exact_as_pytorch(
        lambda backend, o: backend.separable(o[0], None, Window(1), o[1], o[2], True)[1],
        CudaBackend(module),
        operands,
        ["statistics"],
    )


def test_an_empty_batch(module: Any) -> None:
    backend, make = CudaBackend(module), Operands(10)
    x = make.image(0, 5, 4, 4)
    depthwise, pointwise, window = make.vector(5, 1, 3, 3), make.vector(7, 5, 1, 1), Window(3)
    z, statistics = backend.separable(x, None, window, depthwise, pointwise, True)
    assert z.shape == (0, 7, 4, 4)
    assert statistics is not None
    assert not statistics.any()
    norm = make.norm(z, "batch")
    sums = backend.combine_backward(z, [z], [norm], False)
    assert torch.equal(sums, torch.zeros(1, 2, 7))
    assert backend.combine([z], [norm], None, False).shape == z.shape
    up = Upstream(z, z, norm, sums[0])
    found = backend.separable_backward(up, x, None, window, depthwise, pointwise, x, False)
    assert not found[0].any()
    assert not found[1].any()


def test_the_same_bits_twice_and_whatever_the_order_of_threads(module: Any) -> None:
    make, backend = Operands(11), CudaBackend(module)
    x, weights = make.image(3, 20, 9, 9), (make.vector(20, 1, 3, 3), make.vector(24, 20, 1, 1))
    z = make.image(3, 24, 9, 9)
    up, norm, gates = make.upstream(z, "batch"), make.norm(x, "batch"), make.vector(2)
    results = []
    for is_reversed in (False, True):
        module.set_reversed(is_reversed)
        dx = torch.empty_like(x)
        forward = backend.separable(x, norm, Window(3), *weights, True)
        found = backend.separable_backward(up, x, norm, Window(3), *weights, dx, False)
        y = backend.combine([x, x], [norm, None], gates, False)
        sums = backend.combine_backward(x, [x, x], [norm, None], True)
        results.append([*forward, *found, dx, y, sums])
    module.set_reversed(False)
    for first, second in zip(*results, strict=True):
        assert first is not None
        assert torch.equal(first, second)


def rnn_reference(
    x: Tensor,
    h0: Tensor,
    weights: list[Tensor],
    previous: list[list[int]],
    activations: list[list[int]],
    edge_index: list[list[int]],
    carry_last: bool,
) -> tuple[Tensor, Tensor]:
    """The cell, one node of one cell after the other, for autograd."""
    functions = [torch.tanh, torch.relu, lambda v: v, torch.sigmoid]
    w_input, w_hidden, *edges = weights
    outputs, states = [], []
    each = h0.shape[0] // len(previous)
    for m, (sources, kinds, used) in enumerate(zip(previous, activations, edge_index, strict=True)):
        rows = slice(m * each, (m + 1) * each)
        h, own = h0[rows], []
        for step in x[:, rows]:
            pre = step @ w_input.t() + h @ w_hidden.t()
            nodes: list[Tensor] = []
            for j, kind in enumerate(kinds):
                if j:
                    pre, h = nodes[sources[j - 1]] @ edges[used[j - 1]].t(), nodes[sources[j - 1]]
                c, n = pre.chunk(2, 1)
                gate = torch.sigmoid(c)
                nodes.append(gate * functions[kind](n) + (1 - gate) * h)
            leaves = [node for j, node in enumerate(nodes) if j not in sources]
            own.append(torch.stack(leaves).mean(0))
            h = nodes[-1] if carry_last else own[-1]
        outputs.append(torch.stack(own))
        states.append(h)
    return torch.cat(outputs, 1), torch.cat(states)


@each_dtype
@pytest.mark.parametrize("carry_last", [True, False])
@pytest.mark.parametrize(("cells", "hidden"), [(1, 16), (3, 5)])
def test_rnn_cell(
    backend: Backend, dtype: torch.dtype, carry_last: bool, cells: int, hidden: int
) -> None:
    make = Operands(12, dtype)
    batch, steps = 2, 3
    previous = [[0, 1, 0, 3], [0, 0, 0, 0], [0, 1, 2, 3]][:cells]
    activations = [[0, 1, 2, 3, 0], [3, 0, 1, 1, 2], [1, 1, 0, 2, 3]][:cells]
    edge_index = [[0, 1, 2, 3], [0, 4, 2, 5], [0, 1, 6, 3]][:cells]
    x, h0 = make.vector(steps, cells * batch, 7), make.vector(cells * batch, hidden)
    shapes = [(2 * hidden, 7)] + [(2 * hidden, hidden)] * 8
    weights = [0.5 * make.vector(*shape) for shape in shapes]
    d_output, d_state = make.vector(steps, cells * batch, hidden), make.vector(*h0.shape)
    data = (previous, activations, edge_index, carry_last)

    def with_autograd(wide: torch.dtype) -> list[Tensor]:
        leaves = [t.to(wide).requires_grad_() for t in (x, h0, *weights)]
        output, state = rnn_reference(leaves[0], leaves[1], leaves[2:], *data)
        gradients = torch.autograd.grad(
            [output, state], leaves, [d_output.to(wide), d_state.to(wide)], allow_unused=True
        )
        filled = [
            torch.zeros_like(p) if g is None else g for p, g in zip(leaves, gradients, strict=True)
        ]
        return [each.detach() for each in (output, state, *filled)]

    output, state, saved = backend.rnn_cell(x, h0, *weights[:2], weights[2:], *data)
    dx, dh0, d_input, d_hidden, d_edges = backend.rnn_cell_backward(
        d_output, d_state, saved, x, h0, *weights[:2], weights[2:], *data
    )
    shapes = backend.rnn_saved_shapes(*output.shape, len(data[1][0]))
    assert [each.shape for each in saved] == list(shapes), "what tracing is told"
    found = [output, state, dx, dh0, d_input, d_hidden, *d_edges]
    exact, plain = with_autograd(torch.float64), with_autograd(dtype)
    for place, (f, p, e) in enumerate(zip(found, plain, exact, strict=True)):
        assert f.dtype == dtype
        assert error(f, e) <= 2 * error(p, e) + 2 * torch.finfo(dtype).eps, place


def test_more_cells_than_a_launch_takes(module: Any) -> None:
    make, count = Operands(13), module.MOST_CELLS + 3
    data = ([[0]] * count, [[m % 4, 0] for m in range(count)], [[0]] * count, True)
    x, h0 = make.vector(1, count, 3), make.vector(count, 4)
    weights = [make.vector(8, 3), make.vector(8, 4), make.vector(8, 4)]
    output, _, _ = CudaBackend(module).rnn_cell(x, h0, *weights[:2], weights[2:], *data)
    torch.testing.assert_close(output, rnn_reference(x, h0, weights, *data)[0])


# -- the shim itself ------------------------------------------------------------------------------


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_shim_notices(module: Any, mistake: str) -> None:
    expected = "shared memory" if mistake == "shared_memory" else "not all threads reach"
    with pytest.raises(RuntimeError, match=expected):
        module.provoke(mistake)
    module.provoke("none")


def test_the_shim_rounds_as_pytorch_does(module: Any) -> None:
    bits = torch.randint(-(2**31), 2**31, (20_000,), dtype=torch.int64).to(torch.int32)
    edge = torch.tensor([0.0, -0.0, 65519.0, 65520.0, 2.0**-24, 2.0**-25, 6.1e-5, 1e-8])
    values = torch.cat([bits.view(torch.float32), edge, torch.randn(2000)])
    values = values[~values.isnan()]
    for dtype, through in (
        (torch.float16, module.to_half_and_back),
        (torch.bfloat16, module.to_bfloat16_and_back),
    ):
        found = torch.tensor([through(v) for v in values.tolist()])
        assert torch.equal(found, values.to(dtype).float())


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(cuda_host.SANITIZERS in os.environ, reason="this is that run")
def test_under_sanitizers(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    assert compiler is not None
    runtimes = [_runtime(compiler, name) for name in ("libasan.so", "libubsan.so")]
    sanitizers = "address,undefined"
    library = cuda_host.build(tmp_path, sanitizers)
    chosen = ["-k", SANITIZED, "-m", "not slow", "-p", "no:randomly"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", *chosen, __file__]
    environment = os.environ | {
        "LD_PRELOAD": ":".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0:detect_odr_violation=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        cuda_host.SANITIZERS: sanitizers,
        cuda_host.BUILT: str(library),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    overflow = (
        "import importlib.util as u, sys;"
        f"s = u.spec_from_file_location('{cuda_host.NAME}', {str(library)!r});"
        "m = u.module_from_spec(s); s.loader.exec_module(m); m.provoke('overflow')"
    )
    done = subprocess.run(
        [sys.executable, "-c", overflow],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "heap-buffer-overflow" in done.stderr


def _runtime(compiler: str, name: str) -> str:
    command = [compiler, f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(path).is_file():
        pytest.skip(f"no {name} for {compiler}")
    return str(Path(path).resolve())
