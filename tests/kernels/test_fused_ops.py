"""Ops of a graph, run by each backend, against their expansion in float64."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hwnas import kernels
from hwnas.errors import HwnasError, ShapeError, UserInputError
from hwnas.graph import BATCH, EVAL, TRAIN, TRAIN_SHARED, Graph, GraphBuilder, RunMode, Value
from hwnas.graph.ops.mixed_op import Candidate, MixedOp
from hwnas.graph.ops.pool import AvgPool
from hwnas.graph.ops.pool_bn import PoolBn
from hwnas.graph.ops.sep_conv import SepConv
from hwnas.kernels.mixed_op import mixed_op
from hwnas.kernels.plan import Branch, Plan
from hwnas.spaces.enas_micro import EnasMicro
from hwnas.supernet.config import OptimiserConfig
from hwnas.supernet.run import run
from hwnas.supernet.train import Trainer
from hwnas.supernet.weights import WeightStore
from hwnas.testing.kernels import ready

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

Build = Callable[[GraphBuilder], Value]


def darts_like(channels: int) -> tuple[Candidate, ...]:
    """Seven candidates of one edge."""
    return (
        Candidate(SepConv(channels, 3), 0, "sep3"),
        Candidate(SepConv(channels, 5), 0, "sep5"),
        Candidate(SepConv(channels, 3, stages=1, dilation=2), 0, "dil3"),
        Candidate(SepConv(channels, 5, stages=1, dilation=2), 0, "dil5"),
        Candidate(PoolBn("max"), 0, "max"),
        Candidate(PoolBn("avg"), 0, "avg"),
        Candidate(None),
    )


def enas_node(g: GraphBuilder) -> Value:
    other = g.conv_bn(g.input, channels=g.input.shape[0], weights="other")
    c = g.input.shape[0]
    branches = (Candidate(SepConv(c, 3), 0, "a"), Candidate(AvgPool(), 1, "b"))
    return g.mixed_op(g.input, other, branches=branches, weights="node")


def cell_output(g: GraphBuilder) -> Value:
    parts = [g.input, g.max_pool(g.input), g.avg_pool(g.input)]
    return g.concat_conv_bn(*parts, channels=5, sources=("a", "b", "c"), weights="out")


OPS: dict[str, Build] = {
    "sep_conv 3x3": lambda g: g.sep_conv(g.input, channels=6, weights="op"),
    "sep_conv 5x5 stride 2": lambda g: g.sep_conv(
        g.input, channels=3, kernel=5, stride=2, weights="op"
    ),
    "sep_conv 3x3 dilation 2": lambda g: g.sep_conv(
        g.input, channels=4, stages=1, dilation=2, weights="op"
    ),
    "conv_bn 3x3, ReLU after": lambda g: g.conv_bn(
        g.input, channels=7, kernel=3, relu="after", weights="op"
    ),
    "conv_bn 1x1, ReLU before": lambda g: g.conv_bn(
        g.input, channels=7, relu="before", weights="op"
    ),
    "factorized_reduction": lambda g: g.factorized_reduction(
        g.input, channels=6, relu=True, weights="op"
    ),
    "pool_bn max": lambda g: g.pool_bn(g.input, pool="max", weights="op"),
    "pool_bn avg stride 2": lambda g: g.pool_bn(g.input, pool="avg", stride=2, weights="op"),
    "max_pool": lambda g: g.max_pool(g.input),
    "avg_pool": lambda g: g.avg_pool(g.input, stride=2),
    "mixed_op of 7": lambda g: g.mixed_op(
        g.input, branches=darts_like(g.input.shape[0]), gated=True, weights="op"
    ),
    "node of an ENAS cell": enas_node,
    "output of an ENAS cell": cell_output,
    "node of two identities": lambda g: g.mixed_op(
        g.input, g.relu(g.input), branches=(Candidate(None, 0), Candidate(None, 1)), weights="op"
    ),
}

SHAPES = {"cpu": [(6, 7, 5), (17, 1, 1), (3, 8, 9), (63, 3, 3)], "triton": [(6, 7, 5)]}
MODES = {"train": RunMode(batch_statistics=True, momentum=0.3), "eval": EVAL}


def graph_of(build: Build, shape: tuple[int, int, int]) -> Graph:
    g = GraphBuilder(shape)
    return g.finish(build(g))


def outcome(
    graph: Graph, backend: str, dtype: torch.dtype, mode: RunMode, batch: int = 3
) -> dict[str, Tensor]:
    """Result, gradients and running statistics of one pass, from the same weights and image."""
    narrow = WeightStore(3)
    for name, spec in graph.weight_specs().items():
        value = narrow.get(name, spec)
        noise = torch.randn(spec.shape, generator=torch.Generator().manual_seed(len(name)))
        value.data += 0.2 * noise.abs()
    store = WeightStore(3, dtype)
    store.load(narrow.state())
    draws = torch.Generator().manual_seed(5)
    x = torch.randn((batch, *graph.input_shape), generator=draws)
    x = torch.where(x >= 0, x + 0.1, x - 0.1).to(dtype).requires_grad_()
    with kernels.use(backend):
        y = run(graph, store, x, mode)
        y.backward(torch.randn(y.shape, generator=draws).to(dtype))
    found = {"y": y.detach(), "x": x.grad}
    for name, spec in graph.weight_specs().items():
        found[name] = store[name].grad if spec.is_trainable else store[name]
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("name", "op"),
    [
        pytest.param(name, op, marks=[pytest.mark.slow] * (name == "triton" and "mixed" in op))
        for name in ("cpu", "triton")
        for op in OPS
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_a_fused_op_is_its_expansion(name: str, op: str, mode: str) -> None:
    """Value, all gradients and running statistics, with at most twice PyTorch's own error."""
    ready(name)
    for shape in SHAPES[name]:
        graph = graph_of(OPS[op], shape)
        exact = outcome(graph, "reference", torch.float64, MODES[mode])
        plain = outcome(graph, "reference", torch.float32, MODES[mode])
        found = outcome(graph, name, torch.float32, MODES[mode])
        assert found.keys() == exact.keys()
        for key, value in exact.items():
            # What cancels to nothing (a gradient in front of a batch norm) has no relative error.
            scale = max(float(value.norm()), 1e-2 * float(exact["y"].norm()))
            wrong = float((found[key].double() - value).norm()) / scale
            usual = float((plain[key].double() - value).norm()) / scale
            assert wrong <= 2 * usual + 1e-6, (shape, key)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "transposed"])
def test_any_memory_layout_is_taken(layout: str) -> None:
    branch = Branch("separable", kernel=3, stages=1)
    weights = [torch.randn(4, 1, 3, 3), torch.randn(5, 4, 1, 1), torch.ones(5), torch.zeros(5)]
    x = torch.randn(2, 4, 6, 6)
    laid_out = {
        "contiguous": x,
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "sliced": torch.cat([x, x], 1)[:, :4],
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
    }[layout]
    expected, _ = mixed_op(Plan((branch,)), [x], weights, backend="cpu")
    found, _ = mixed_op(Plan((branch,)), [laid_out], weights, backend="cpu")
    assert torch.equal(found, expected)


def test_a_gate_of_zero_costs_nothing_and_gets_no_gradient() -> None:
    graph = graph_of(OPS["mixed_op of 7"], (6, 7, 5))
    store = WeightStore(0)
    specs = graph.weight_specs()
    gates = store.get("op/gates/weight", specs["op/gates/weight"])
    with torch.no_grad():
        gates.copy_(torch.tensor([0, 0.5, 0, 0, 1.0, 0, 0]))
    run(graph, store, torch.randn(2, 6, 7, 5), TRAIN_SHARED).square().sum().backward()
    assert gates.grad is not None
    assert gates.grad.nonzero().flatten().tolist() == [1, 4]
    touched = {name for name in specs if name in set(store) and store[name].grad is not None}
    assert {name.split("/")[1] for name in touched} == {"sep5", "max", "gates"}


def test_all_branches_masked_give_zeros() -> None:
    plan = Plan((Branch("separable", kernel=3, stages=1), Branch("avg_pool", kernel=3)))
    norm = [torch.ones(4), torch.zeros(4)]
    weights = [torch.randn(4, 1, 3, 3), torch.randn(4, 4, 1, 1), *norm, *norm]
    x = torch.randn(2, 4, 5, 5, requires_grad=True)
    gates = torch.zeros(2, requires_grad=True)
    y, _ = mixed_op(plan, [x], weights, backend="cpu", gates=gates)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(2, 4, 5, 5))
    assert torch.equal(x.grad, torch.zeros_like(x))
    assert torch.equal(gates.grad, torch.zeros(2))


def test_the_gradient_of_a_masked_gate_can_be_asked_for() -> None:
    """ProxylessNAS needs the gradient of a gate whose value is 0."""
    plan = Plan((Branch("avg_pool", kernel=3), Branch("identity", has_norm=False)))
    weights = [torch.ones(4), torch.zeros(4)]
    x, gates = torch.randn(2, 4, 5, 5), torch.tensor([1.0, 0.0], requires_grad=True)
    y, _ = mixed_op(plan, [x], weights, backend="cpu", gates=gates, active=[True, True])
    y.backward(torch.ones_like(y))
    torch.testing.assert_close(gates.grad[1], x.sum(), rtol=1e-4, atol=1e-4)


PLANS = {
    "separable": Plan((Branch("separable", kernel=3, stages=2),)),
    "pool and identity": Plan(
        (Branch("max_pool", kernel=3, has_norm=False), Branch("identity", has_norm=False))
    ),
    "concatenation": Plan((Branch("conv", inputs=(0, 1), relu_before=True),)),
}


#: Every kind of branch for itself, and together.
EACH_KIND = {
    **PLANS,
    "separable, one stage": Plan((Branch("separable", kernel=3),)),
    "separable, dilated": Plan((Branch("separable", kernel=3, dilation=2),)),
    "conv 1x1": Plan((Branch("conv"),)),
    "conv 3x3, ReLU after": Plan((Branch("conv", kernel=3, relu_after=True),)),
    "conv 3x3 stride 2, ReLU before": Plan((Branch("conv", kernel=3, stride=2, relu_before=True),)),
    "reduction": Plan((Branch("reduction", relu_before=True),)),
    "max_pool": Plan((Branch("max_pool", kernel=3),)),
    "avg_pool": Plan((Branch("avg_pool", kernel=3),)),
    "avg_pool without norm": Plan((Branch("avg_pool", kernel=3, stride=2, has_norm=False),)),
    "identity": Plan((Branch("identity", has_norm=False),)),
    "mixture": Plan(
        (
            Branch("separable", kernel=3),
            Branch("conv", inputs=(0, 1)),
            Branch("max_pool", inputs=(1,), kernel=3),
            Branch("avg_pool", kernel=3, has_norm=False),
            Branch("identity", inputs=(1,), has_norm=False),
        )
    ),
}


def operands(plan: Plan) -> tuple[list[Tensor], list[Tensor]]:
    torch.manual_seed(0)
    count = 1 + max(max(branch.inputs) for branch in plan.branches)
    # Far enough apart that no step of a finite difference changes the order.
    inputs = [torch.randperm(96).reshape(2, 4, 4, 3) / 24 - 1.99 for _ in range(count)]
    weights: list[Tensor] = []
    for branch in plan.branches:
        for _ in range(branch.stages):
            if branch.kind == "separable":
                weights += [torch.randn(4, 1, 3, 3), torch.randn(4, 4, 1, 1)]
            elif branch.kind == "conv":
                sides = (branch.kernel, branch.kernel)
                weights.append(torch.randn(4, 4 * len(branch.inputs), *sides))
            elif branch.kind == "reduction":
                weights += [torch.randn(2, 4, 1, 1), torch.randn(2, 4, 1, 1)]
            if branch.has_norm:
                weights += [torch.rand(4) + 0.5, torch.randn(4)]
    inputs = [torch.where(x >= 0, x + 0.1, x - 0.1) for x in inputs]
    return [x.requires_grad_() for x in inputs], [w.requires_grad_() for w in weights]


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_opcheck(plan: Plan, backend: str) -> None:
    """Schema, autograd registration, fake tensors, AOT dispatch."""
    ready(backend)
    inputs, weights = operands(plan)
    active = [True] * len(plan.branches)
    checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if backend == "cpu":
        checks.append("test_aot_dispatch_dynamic")
    torch.library.opcheck(
        torch.ops.hwnas.mixed_op,
        (inputs, weights, [], None, active, plan.text, backend),
        test_utils=checks,
        rtol=1e-3,
        atol=1e-4,
    )


@pytest.mark.parametrize("is_gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("plan", EACH_KIND.values(), ids=EACH_KIND)
@pytest.mark.filterwarnings("ignore:Input #:UserWarning")
def test_gradcheck(plan: Plan, is_gated: bool) -> None:
    """Finite differences; in float32, the only type of these kernels, so with wide steps."""
    inputs, weights = operands(plan)
    first, last = len(inputs), len(inputs) + len(weights)
    gates = [0.5 + torch.rand(len(plan.branches))] if is_gated else []

    def scalar(*tensors: Tensor) -> Tensor:
        y, _ = mixed_op(
            plan,
            tensors[:first],
            tensors[first:last],
            backend="cpu",
            gates=tensors[last] if is_gated else None,
        )
        return (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum()

    tensors = (*inputs, *weights, *[each.requires_grad_() for each in gates])
    assert torch.autograd.gradcheck(
        scalar, tensors, eps=2e-3, atol=3e-2, rtol=3e-2, nondet_tol=0.0, check_batched_grad=False
    )


def test_a_second_derivative_is_refused() -> None:
    inputs, weights = operands(PLANS["separable"])
    y, _ = mixed_op(PLANS["separable"], inputs, weights, backend="cpu")
    (dx,) = torch.autograd.grad(y.sum(), inputs[0], create_graph=True)
    with pytest.raises(HwnasError, match="second derivative"):
        dx.sum().backward()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_number_of_threads_gives_the_same_bits(threads: int) -> None:
    space = EnasMicro(EnasMicro.Config(layers=2, channels=20), (3, 16, 16), 10)
    graph = space.graph(space.sample(random.Random(1)))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first, second = (outcome(graph, "cpu", torch.float32, BATCH, batch=9) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def batches(steps: int) -> list[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(0)
    teacher = torch.randn(3 * 8 * 8, 4, generator=draws)
    found = []
    for _ in range(steps):
        x = torch.randn(16, 3, 8, 8, generator=draws)
        found.append((x, (x.flatten(1) @ teacher).argmax(1)))
    return found


@pytest.mark.slow
def test_training_follows_the_reference() -> None:
    """200 steps of a supernet that samples a new child each step: the same loss curve."""
    space = EnasMicro(EnasMicro.Config(layers=2, channels=4, nodes=2, dropout=0), (3, 8, 8), 4)
    curves: dict[str, list[float]] = {}
    for backend in ("reference", "cpu"):
        store, rng = WeightStore(0), random.Random(0)
        trainer = Trainer(store, OptimiserConfig(learning_rate=0.02), epochs=1)
        with kernels.use(backend):
            curves[backend] = [
                trainer.step([space.graph(space.sample(rng))], batch, 0.5, TRAIN_SHARED).loss
                for batch in batches(200)
            ]
    reference, fused = torch.tensor(curves["reference"]), torch.tensor(curves["cpu"])
    assert float((reference[:20] - fused[:20]).abs().max()) < 1e-3
    # Rounding differences grow with the steps, as between two threads counts of PyTorch itself.
    smooth = [curve.unfold(0, 20, 20).mean(1) for curve in (reference, fused)]
    assert float((smooth[0] - smooth[1]).abs().max()) < 0.05
    assert fused[-20:].mean() < fused[:20].mean(), "the test must learn something"


def test_evaluation_after_training_uses_the_running_statistics() -> None:
    """A network of its own, trained fused, scores alike under the reference."""
    g = GraphBuilder((3, 8, 8))
    x = g.conv_bn(g.input, channels=8, kernel=3, weights="stem")
    x = g.sep_conv(x, channels=8, weights="sep")
    graph = g.finish(g.classifier(x, classes=4, weights="head"))
    store = WeightStore(0)
    trainer = Trainer(store, OptimiserConfig(), epochs=1)
    for batch in batches(5):
        trainer.step([graph], batch, 0.5, TRAIN)
    images, labels = batches(1)[0]
    logits = []
    for backend in ("reference", "cpu"):
        with kernels.use(backend), torch.no_grad():
            logits.append(run(graph, store, images, EVAL))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-5)
    assert float(cross_entropy(logits[0], labels)) < 20


def live_activations(backend: str) -> float:
    """Activation-sized tensors kept alive between forward and backward of a sep_conv."""
    graph = graph_of(lambda g: g.sep_conv(g.input, channels=16, weights="op"), (16, 16, 16))
    store, x = WeightStore(0), torch.randn(8, 16, 16, 16, requires_grad=True)
    size = x.numel() * 4
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def unpack(tensor: Tensor) -> Any:
        return tensor

    with kernels.use(backend), torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        y = run(graph, store, x, TRAIN_SHARED)
    kept[y.untyped_storage().data_ptr()] = y.untyped_storage().nbytes()
    return sum(kept.values()) / size


def test_few_activations_are_kept() -> None:
    """Input, z of both stages and the result: 4, of which the input is the caller's."""
    assert live_activations("cpu") - 1 <= 3.2
    assert live_activations("reference") > 7


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        (0, (5, 1, 3, 3), "depthwise"),
        (1, (4, 5, 1, 1), "pointwise"),
        (2, (3,), "scale"),
        (7, (1,), "shift"),
    ],
)
def test_a_weight_that_does_not_fit_is_refused(
    place: int, shape: tuple[int, ...], message: str
) -> None:
    """The kernels would read behind its end."""
    inputs, weights = operands(PLANS["separable"])
    weights[place] = torch.zeros(shape)
    with pytest.raises(ShapeError, match=message):
        mixed_op(PLANS["separable"], inputs, weights, backend="cpu")


def test_operands_of_another_type_are_refused() -> None:
    inputs, weights = operands(PLANS["separable"])
    weights[1] = weights[1].double()
    with pytest.raises(ShapeError, match=r"weight 1 is torch\.float64"):
        mixed_op(PLANS["separable"], inputs, weights, backend="cpu")


@pytest.mark.parametrize("kernel", [2, 4, 17])
def test_windows_that_no_kernel_takes_run_by_their_expansion(kernel: int) -> None:
    g = GraphBuilder((3, 20, 20))
    graph = g.finish(
        g.max_pool(g.conv_bn(g.input, channels=4, kernel=kernel, weights="a"), kernel=kernel)
    )
    found = outcome(graph, "cpu", torch.float32, TRAIN)
    expected = outcome(graph, "reference", torch.float32, TRAIN)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_backend_refuses_types_that_it_does_not_take(dtype: torch.dtype) -> None:
    """The kernels would take the memory for float32."""
    inputs, weights = operands(PLANS["separable"])
    with pytest.raises(UserInputError, match="does not take"):
        mixed_op(
            PLANS["separable"],
            [x.to(dtype) for x in inputs],
            [w.to(dtype) for w in weights],
            backend="cpu",
        )


def test_a_backend_refuses_windows_that_it_does_not_take() -> None:
    """The index of a max pool is a byte."""
    plan = Plan((Branch("max_pool", kernel=17, has_norm=False),))
    with pytest.raises(UserInputError, match="max_pool 17x17"):
        mixed_op(plan, [torch.randn(1, 4, 20, 20)], [], backend="cpu")


@pytest.mark.parametrize(
    "branches",
    [
        (Branch("identity", has_norm=False), Branch("conv", relu_after=True)),
    ],
)
def test_a_plan_that_means_nothing_is_refused(branches: tuple[Branch, ...]) -> None:
    with pytest.raises(ShapeError, match="rectifies"):
        Plan(branches)
    with pytest.raises(ShapeError, match="need a norm"):
        Branch("conv", relu_after=True, has_norm=False)
    with pytest.raises(ShapeError, match="need a norm"):
        Branch("separable", stages=2, has_norm=False)


def test_saved_tensors_may_come_back_in_another_layout() -> None:
    """Hooks that offload or compress saved tensors need not keep channels_last."""
    inputs, weights = operands(PLANS["separable"])
    gradients = []
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda t: t.detach().clone(memory_format=torch.contiguous_format), lambda t: t
    )
    for context in (contextlib.nullcontext(), hooks):
        with context:
            y, _ = mixed_op(PLANS["separable"], inputs, weights, backend="cpu")
        gradients.append(torch.autograd.grad(y.square().sum(), [*inputs, *weights]))
    for plain, hooked in zip(*gradients, strict=True):
        assert torch.equal(plain, hooked)


def test_running_statistics_of_another_type_are_converted() -> None:
    inputs, weights = operands(PLANS["separable"])
    statistics = [torch.rand(2, 4) + 0.5 for _ in range(2)]
    found = [
        mixed_op(PLANS["separable"], inputs, weights, backend="cpu", statistics=each)[0]
        for each in (
            statistics,
            [s.double() for s in statistics],
            [s.t().contiguous().t() for s in statistics],
        )
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def gated(gates: list[float]) -> tuple[Graph, WeightStore, WeightStore]:
    graph = graph_of(OPS["mixed_op of 7"], (4, 6, 6))
    stores = WeightStore(0), WeightStore(0)
    for store in stores:
        store.get("op/gates/weight", graph.weight_specs()["op/gates/weight"]).data = torch.tensor(
            gates
        )
    return graph, *stores


@pytest.mark.parametrize("gates", [[0, 1, 0, 0, 0.5, 0, -1], [0.0] * 7])
def test_the_reference_switches_branches_off_too(gates: list[float]) -> None:
    graph, *stores = gated(gates)
    x, results = torch.randn(2, 4, 6, 6), []
    for name, store in zip(("cpu", "reference"), stores, strict=True):
        with kernels.use(name):
            y = run(graph, store, x.clone().requires_grad_(), TRAIN_SHARED)
        if any(gates):
            y.square().sum().backward()
        results.append((y.detach(), store["op/gates/weight"].grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    if any(gates):
        torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-3)


def test_gates_inside_gates() -> None:
    inner = MixedOp((Candidate(PoolBn("max"), 0, "m"),), gated=True)
    graph = graph_of(
        lambda g: g.mixed_op(
            g.input, branches=(Candidate(inner, 0, "inner"), Candidate(None)), weights="op"
        ),
        (4, 6, 6),
    )
    store = WeightStore(0)
    specs = graph.weight_specs()
    store.get("op/inner/gates/weight", specs["op/inner/gates/weight"]).data.fill_(3.0)
    x = torch.randn(2, 4, 6, 6)
    found = []
    for name in ("cpu", "reference"):
        with kernels.use(name), torch.no_grad():
            found.append(run(graph, store, x, TRAIN_SHARED))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_autocast_runs_the_reference() -> None:
    graph, store = graph_of(OPS["sep_conv 3x3"], (6, 7, 5)), WeightStore(0)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert run(graph, store, torch.randn(2, 6, 7, 5), TRAIN_SHARED).shape == (2, 6, 7, 5)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_one_value_has_no_variance(backend: str) -> None:
    graph, store = graph_of(OPS["sep_conv 3x3"], (6, 1, 1)), WeightStore(0)
    with kernels.use(backend), pytest.raises(ValueError, match="more than 1 value per channel"):
        run(graph, store, torch.randn(1, 6, 1, 1), TRAIN)


@pytest.mark.parametrize("gates", [None, [0.5, 1.0, 0.0]])
def test_opcheck_of_the_backward_operator(gates: list[float] | None) -> None:
    plan = Plan(
        (
            Branch("separable", kernel=3, stages=2),
            Branch("max_pool", kernel=3),
            Branch("identity", has_norm=False),
        )
    )
    inputs, weights = operands(plan)
    inputs, weights = [x.detach() for x in inputs], [w.detach() for w in weights]
    given = None if gates is None else torch.tensor(gates)
    active = [True, True, gates is None]
    forward = (inputs, weights, [], given, active, plan.text, "cpu")
    y, saved = torch.ops.hwnas.mixed_op(*forward)
    torch.library.opcheck(
        torch.ops.hwnas.mixed_op_backward,
        (torch.ones_like(y), inputs, weights, [], given, saved, active, [True], plan.text, "cpu"),
        test_utils=["test_schema", "test_faketensor"],
    )
