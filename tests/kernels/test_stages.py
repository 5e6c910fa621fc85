"""Every stage of every backend against plain PyTorch, in float64 and in its own dtype."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from hwnas.kernels.backend import Backend, Upstream, Window
from hwnas.testing.kernels import ON_CPU, Operands, assert_as_exact_as_pytorch, ready

DTYPES = {"cpu": (torch.float32,), "triton": (torch.float32, torch.float16)}
NORMS = ("none", "batch", "eval")
Case: TypeAlias = tuple[Any, ...]

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's numpy


def backends(cases: Sequence[Case]) -> pytest.MarkDecorator:
    """Each backend and dtype with each case that it can run in a test's time.

    Triton's interpreter takes up to 50 ms a program: it gets the small cases only.
    """
    found = []
    for name, case in itertools.product(ON_CPU, cases):
        if name == "triton" and largest(case) > 18:
            continue
        for dtype in DTYPES[name]:
            # Half precision runs the same code as float32: once in a while is enough.
            marks = [pytest.mark.slow] if dtype == torch.float16 else []
            label = f"{name}-{str(dtype).removeprefix('torch.')}-{case}"
            found.append(pytest.param(name, dtype, case, marks=marks, id=label))
    return pytest.mark.parametrize(("name", "dtype", "case"), found)


def largest(case: Case) -> int:
    return max(max(each) if isinstance(each, tuple) else each for each in case)


def target(x: Tensor, accumulate: bool) -> Tensor:
    """A gradient to add to, or memory that must be overwritten."""
    made = torch.full_like(x, 0.5 if accumulate else torch.nan)
    return made.contiguous(memory_format=torch.channels_last)


#: Batch, input and output channels, height, width, kernel, stride, dilation.
SEPARABLE = [
    (2, 16, 16, 8, 8, 3, 1, 1),
    (2, 20, 20, 9, 7, 5, 1, 1),
    (1, 3, 17, 6, 5, 3, 2, 1),
    (3, 17, 3, 7, 8, 3, 1, 2),
    (1, 1, 1, 1, 1, 3, 1, 1),
    (1, 8, 4, 5, 6, 7, 1, 1),
    (2, 4, 8, 9, 9, 5, 2, 2),
    (1, 63, 63, 5, 4, 3, 1, 1),
    (2, 80, 80, 8, 8, 5, 1, 1),
    (1, 40, 40, 16, 16, 3, 1, 1),
]


@backends(SEPARABLE)
@pytest.mark.parametrize("norm", NORMS)
def test_separable(name: str, dtype: torch.dtype, case: Case, norm: str) -> None:
    backend = ready(name)
    n, c, d, h, w, k, stride, dilation = case
    make = Operands(1, dtype)
    x = make.image(n, c, h, w)
    operands = (x, make.norm(x, norm), make.vector(c, 1, k, k), make.vector(d, c, 1, 1))

    def run(backend: Backend, o: Any) -> Any:
        return backend.separable(o[0], o[1], Window(k, stride, dilation), o[2], o[3], True)

    assert_as_exact_as_pytorch(run, backend, operands, ["z", "statistics"])


@backends(SEPARABLE)
@pytest.mark.parametrize(("norm", "after"), list(itertools.product(NORMS, NORMS)))
def test_separable_backward(
    name: str, dtype: torch.dtype, case: Case, norm: str, after: str
) -> None:
    backend = ready(name)
    n, c, d, h, w, k, stride, dilation = case
    make, window = Operands(2, dtype), Window(k, stride, dilation)
    x = make.image(n, c, h, w)
    z = make.image(n, d, window.size(h), window.size(w))
    up = make.upstream(z, after, gated=norm == "none", relu=after == "eval")
    accumulate = norm != "batch"
    weights = (make.vector(c, 1, k, k), make.vector(d, c, 1, 1))
    operands = (up, x, make.norm(x, norm), *weights, target(x, accumulate))

    def run(backend: Backend, o: Any) -> Any:
        d_depthwise, d_pointwise, sums = backend.separable_backward(
            o[0], o[1], o[2], window, o[3], o[4], o[5], accumulate
        )
        return d_depthwise, d_pointwise, o[5], [] if sums is None else sums

    assert_as_exact_as_pytorch(run, backend, operands, ["d_depthwise", "d_pointwise", "dx", "sums"])


@pytest.mark.parametrize("stride", [1, 2])
def test_sums_over_a_large_image_keep_their_digits(stride: int) -> None:
    """The gradient of the first norm of a sep_conv: one float cannot add up 50,000 pixels."""
    backend, make, window = ready("cpu"), Operands(2), Window(3, stride)
    x = make.image(1, 8, 224, 224)
    z = make.image(1, 8, window.size(224), window.size(224))
    up = make.upstream(z, "batch")
    # A mean of the gradient that is not 0: partial sums then grow with the image.
    up = replace(up, gradient=up.gradient + 3)
    weights = (make.vector(8, 1, 3, 3), make.vector(8, 8, 1, 1))
    operands = (up, x, make.norm(x, "batch"), *weights, target(x, False))

    def run(backend: Backend, o: Any) -> Any:
        return backend.separable_backward(o[0], o[1], o[2], window, o[3], o[4], o[5], False)

    assert_as_exact_as_pytorch(run, backend, operands, ["d_depthwise", "d_pointwise", "sums"])


#: Batch, channels of each input, output channels, height, width, kernel, stride.
CONV = [
    (2, (16,), 16, 8, 8, 1, 1),
    (2, (20, 20, 20), 20, 6, 7, 1, 1),
    (1, (3,), 60, 9, 8, 3, 1),
    (1, (3,), 5, 7, 7, 5, 2),
    (1, (1,), 1, 1, 1, 3, 1),
    (2, (17, 3), 63, 5, 3, 1, 1),
    (2, (8,), 6, 7, 5, 1, 2),
    (1, (40,) * 6, 40, 8, 8, 1, 1),
    (1, (24,), 33, 6, 6, 7, 1),
]


@backends(CONV)
@pytest.mark.parametrize("relu", [True, False])
def test_conv(name: str, dtype: torch.dtype, case: Case, relu: bool) -> None:
    backend = ready(name)
    n, channels, d, h, w, k, stride = case
    make, window = Operands(3, dtype), Window(k, stride)
    xs = [make.image(n, c, h, w) for c in channels]
    weight = make.vector(d, sum(channels), k, k)
    assert_as_exact_as_pytorch(
        lambda backend, o: backend.conv(o[0], relu, window, o[1], True),
        backend,
        (xs, weight),
        ["z", "statistics"],
    )


@backends(CONV)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("after", NORMS)
def test_conv_backward(name: str, dtype: torch.dtype, case: Case, relu: bool, after: str) -> None:
    backend = ready(name)
    n, channels, d, h, w, k, stride = case
    make, window = Operands(4, dtype), Window(k, stride)
    xs = [make.image(n, c, h, w) for c in channels]
    z = make.image(n, d, window.size(h), window.size(w))
    up = make.upstream(z, after, gated=relu, relu=after == "batch" and not relu)
    adds = [place % 2 == 1 for place in range(len(xs))]
    dxs = [target(x, add) for x, add in zip(xs, adds, strict=True)]
    weight = make.vector(d, sum(channels), k, k)

    def run(backend: Backend, o: Any) -> Any:
        wanted = [None if place == 2 else dx for place, dx in enumerate(o[2])]
        d_weight = backend.conv_backward(o[0], o[1], relu, window, o[3], wanted, adds)
        return d_weight, [dx for dx in wanted if dx is not None]

    assert_as_exact_as_pytorch(run, backend, (up, xs, dxs, weight), ["d_weight"])


REDUCTION = [
    (2, 16, 16, 8, 8),
    (1, 20, 40, 9, 7),
    (1, 3, 2, 1, 1),
    (2, 5, 6, 6, 3),
    (1, 60, 34, 6, 5),
]


@backends(REDUCTION)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("after", NORMS)
def test_reduction(name: str, dtype: torch.dtype, case: Case, relu: bool, after: str) -> None:
    backend = ready(name)
    n, c, d, h, w = case
    make = Operands(5, dtype)
    x = make.image(n, c, h, w)
    weights = (make.vector(d // 2, c, 1, 1), make.vector(d // 2, c, 1, 1))
    z = make.image(n, d, (h + 1) // 2, (w + 1) // 2)
    up = make.upstream(z, after, gated=relu)

    def run(backend: Backend, o: Any) -> Any:
        d_weights = backend.reduction_backward(o[0], o[1], relu, o[2], o[3], o[4], relu)
        return backend.reduction(o[1], relu, o[2], o[3], True), d_weights, o[4]

    names = ["z", "statistics", "d_even", "d_odd", "dx"]
    assert_as_exact_as_pytorch(run, backend, (up, x, *weights, target(x, relu)), names)


POOL = [
    (2, 16, 8, 8, 3, 1),
    (1, 20, 9, 7, 3, 2),
    (1, 1, 1, 1, 3, 1),
    (1, 3, 6, 5, 5, 1),
    (2, 17, 5, 8, 3, 1),
    (1, 63, 17, 3, 3, 2),
    (1, 80, 8, 8, 3, 1),
]


@backends(POOL)
@pytest.mark.parametrize("is_max", [True, False])
@pytest.mark.parametrize("after", NORMS)
def test_pool(name: str, dtype: torch.dtype, case: Case, is_max: bool, after: str) -> None:
    backend = ready(name)
    n, c, h, w, k, stride = case
    make, window = Operands(6, dtype), Window(k, stride)
    x = make.image(n, c, h, w)
    z = make.image(n, c, window.size(h), window.size(w))
    up = make.upstream(z, after, gated=True)
    accumulate = after == "eval"

    def run(backend: Backend, o: Any) -> Any:
        z, index, statistics = backend.pool(o[1], is_max, window, True)
        backend.pool_backward(o[0], index, is_max, window, o[2], accumulate)
        return z, statistics, o[2]

    names = ["z", "statistics", "dx"]
    assert_as_exact_as_pytorch(run, backend, (up, x, target(x, accumulate)), names)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ON_CPU)
def test_rows_with_nan_or_infinity_are_pooled_as_in_pytorch(name: str, stride: int) -> None:
    """Rows without them may take a shorter way: each kind comes before and behind the other."""
    backend, window = ready(name), Window(3, stride)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, 20, 9, 8), generator=generator)
    for row, value in ((2, torch.nan), (3, torch.inf), (7, -torch.inf), (8, torch.nan)):
        x[:, :, row] = x[:, :, row].where(torch.rand((2, 20, 8), generator=generator) > 0.1, value)
    x = x.contiguous(memory_format=torch.channels_last)
    leaf = x.clone().requires_grad_()
    expected = torch.nn.functional.max_pool2d(leaf, 3, stride, 1)
    expected.sum().backward()
    z, index, _ = backend.pool(x, True, window, False)
    dx = target(x, False)
    ones = torch.ones_like(z)
    backend.pool_backward(Upstream(ones, None, None, None), index, True, window, dx, False)
    torch.testing.assert_close(z, expected.detach(), equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(dx, leaf.grad)


@pytest.mark.parametrize("name", ON_CPU)
def test_the_first_of_equal_maxima_gets_the_gradient(name: str) -> None:
    """As in PyTorch; a NaN is the maximum."""
    backend, window = ready(name), Window(3)
    x = torch.randint(0, 3, (1, 4, 6, 6), generator=torch.Generator().manual_seed(0)).float()
    x[0, 1, 2, 3] = torch.nan
    x = x.contiguous(memory_format=torch.channels_last)
    z, index, _ = backend.pool(x, True, window, False)
    leaf = x.clone().requires_grad_()
    expected = torch.nn.functional.max_pool2d(leaf, 3, 1, 1)
    assert torch.equal(z.isnan(), expected.isnan())
    assert torch.equal(z.nan_to_num(), expected.detach().nan_to_num())
    gradient = torch.arange(z.numel(), dtype=torch.float32).reshape(z.shape)
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    expected.backward(gradient)
    dx = target(x, False)
    backend.pool_backward(Upstream(gradient, None, None, None), index, True, window, dx, False)
    torch.testing.assert_close(dx, leaf.grad)


@backends([(1,), (3,), (16,), (17,), (20,), (63,)])
@pytest.mark.parametrize("kinds", [("batch",), ("none", "batch"), ("batch", "eval", "none") * 3])
@pytest.mark.parametrize(("gated", "relu"), [(False, False), (True, False), (False, True)])
def test_combine(
    name: str,
    dtype: torch.dtype,
    case: Case,
    kinds: tuple[str, ...],
    gated: bool,
    relu: bool,
) -> None:
    backend = ready(name)
    make, (channels,) = Operands(7, dtype), case
    zs = [make.image(2, channels, 5, 3) for _ in kinds]
    norms = [make.norm(z, kind) for z, kind in zip(zs, kinds, strict=True)]
    gates = make.vector(len(kinds)) if gated else None
    operands = (zs, norms, gates, make.image(2, channels, 5, 3))

    def run(backend: Backend, o: Any) -> Any:
        return backend.combine(*o[:3], relu), backend.combine_backward(o[3], o[0], o[1], relu)

    assert_as_exact_as_pytorch(run, backend, operands, ["y", "sums"])


@backends([(2, 13, 3, 5)])
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("accumulate", [True, False])
def test_accumulate(name: str, dtype: torch.dtype, case: Case, kind: str, accumulate: bool) -> None:
    backend, make = ready(name), Operands(8, dtype)
    z = make.image(*case)
    operands = (make.upstream(z, kind, gated=True), target(z, accumulate))

    def run(backend: Backend, o: Any) -> Any:
        backend.accumulate(o[0], o[1], accumulate)
        return o[1]

    assert_as_exact_as_pytorch(run, backend, operands, ["dx"])


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_statistics_survive_a_large_mean(name: str, offset: float) -> None:
    """E[z²] − E[z]² would lose all digits of a variance of 1 beside a mean of 1,000."""
    backend, make = ready(name), Operands(9)
    x = make.image(4, 16, 8, 8) + offset
    weight = torch.eye(16).view(16, 16, 1, 1)
    assert_as_exact_as_pytorch(
        lambda backend, o: backend.conv([o[0]], False, Window(1), o[1], True)[1],
        backend,
        (x, weight),
        ["statistics"],
    )


@backends([(c, w) for c in (1, 3) for w in (3, 17)])
@pytest.mark.parametrize("stride", [1, 2])
def test_statistics_of_an_average_pool(
    name: str, dtype: torch.dtype, case: Case, stride: int
) -> None:
    """Rows that end inside a vector, and pixels narrower than one."""
    backend, make, (channels, width) = ready(name), Operands(11, dtype), case
    x = make.image(2, channels, 6, width) + 2
    assert_as_exact_as_pytorch(
        lambda backend, o: backend.pool(o[0], False, Window(3, stride), True)[2],
        backend,
        (x,),
        ["statistics"],
    )


@pytest.mark.parametrize("name", ON_CPU)
def test_an_empty_batch(name: str) -> None:
    backend, make = ready(name), Operands(10)
    x = make.image(0, 5, 4, 4)
    depthwise, pointwise = make.vector(5, 1, 3, 3), make.vector(7, 5, 1, 1)
    window = Window(3)
    z, statistics = backend.separable(x, None, window, depthwise, pointwise, True)
    assert z.shape == (0, 7, 4, 4)
    assert statistics is not None
    assert torch.equal(statistics, torch.zeros(2, 7))
    norm = make.norm(z, "batch")
    sums = backend.combine_backward(z, [z], [norm], False)
    assert torch.equal(sums, torch.zeros(1, 2, 7))
    up = Upstream(z, z, norm, sums[0])
    found = backend.separable_backward(
        up, x, None, window, depthwise, pointwise, torch.empty_like(x), False
    )
    assert torch.equal(found[0], torch.zeros_like(depthwise))
    assert torch.equal(found[1], torch.zeros_like(pointwise))
    d_weight = backend.conv_backward(
        up, [x], True, Window(1), pointwise, [torch.empty_like(x)], [False]
    )
    assert torch.equal(d_weight, torch.zeros_like(pointwise))
    for is_max in (True, False):
        pooled, index, _ = backend.pool(x, is_max, window, True)
        up = Upstream(pooled, None, None, None)
        backend.pool_backward(up, index, is_max, window, torch.empty_like(x), False)
