"""Several fused ops as one step of autograd, against PyTorch's own autograd in float64."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hwnas.errors import ShapeError, UserInputError
from hwnas.kernels import _cpu_queue
from hwnas.kernels import region as region_module
from hwnas.kernels.backend import Backend
from hwnas.kernels.gradients import Gradients
from hwnas.kernels.plan import Branch, Plan
from hwnas.kernels.region import Step, region
from hwnas.testing.kernels import Operands, ready
from hwnas.testing.plain_stages import PlainBackend

CHANNELS, SIDE, IMAGES = 5, 6, 3


class Exact(PlainBackend):
    """The stages in plain PyTorch, also when asked for by nobody: they take float64."""

    def accepts(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Return True."""
        return True


def backend_of(name: str) -> Backend:
    return Exact() if name == "plain" else ready(name)


#: What a step of a random region may do; the second number of `inputs` is another value.
PLANS = (
    Plan((Branch("identity", has_norm=False), Branch("identity", (1,), has_norm=False))),
    Plan((Branch("identity", has_norm=False), Branch("separable", (1,), kernel=3, stages=2))),
    Plan((Branch("identity", has_norm=False), Branch("separable", (0,), kernel=3))),
    Plan((Branch("max_pool", kernel=3, has_norm=False), Branch("avg_pool", (1,), kernel=3))),
    Plan((Branch("conv", (0, 1), relu_before=True),)),
    Plan((Branch("conv", kernel=3, relu_after=True),)),
    Plan((Branch("identity", has_norm=False),)),
)


def weights_of(branch: Branch, draw: Operands) -> list[Tensor]:
    c, k = CHANNELS, branch.kernel
    own: list[tuple[int, ...]] = []
    if branch.kind == "separable":
        own = [(c, 1, k, k), (c, c, 1, 1)]
    elif branch.kind == "conv":
        own = [(c, c * len(branch.inputs), k, k)]
    norm = [(c,), (c,)] if branch.has_norm else []
    return [0.5 * draw.vector(*shape) for _ in range(branch.stages) for shape in (*own, *norm)]


def random_region(seed: int, dtype: torch.dtype) -> tuple[list[Tensor], list[Step]]:
    rng, draw = random.Random(seed), Operands(seed)
    inputs = [draw.image(IMAGES, CHANNELS, SIDE, SIDE) for _ in range(2)]
    steps = []
    for number in range(8):
        plan = rng.choice(PLANS)
        count = 1 + max(i for branch in plan.branches for i in branch.inputs)
        read = tuple(rng.randrange(len(inputs) + number) for _ in range(count))
        weights = [each for branch in plan.branches for each in weights_of(branch, draw)]
        gates = draw.vector(len(plan.branches)) if rng.random() < 0.3 else None
        if gates is not None and len(gates) > 1 and rng.random() < 0.5:
            gates[0] = 0.0
        steps.append(Step(plan, read, [_leaf(each, dtype) for each in weights], (), gates))
    steps = [
        Step(s.plan, s.inputs, s.weights, (), None if s.gates is None else _leaf(s.gates, dtype))
        for s in steps
    ]
    return [_leaf(each, dtype) for each in inputs], steps


def _leaf(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.detach().to(dtype).requires_grad_()


def by_pytorch(step: Step, inputs: Sequence[Tensor]) -> Tensor:
    total = inputs[0].new_zeros(())
    rest = iter(step.weights)
    for number, branch in enumerate(step.plan.branches):
        y = torch.cat([inputs[i] for i in branch.inputs], 1)
        padding = branch.kernel // 2
        for _ in range(branch.stages):
            if branch.kind == "separable":
                y = F.conv2d(y.relu(), next(rest), padding=padding, groups=CHANNELS)
                y = F.conv2d(y, next(rest))
            elif branch.kind == "conv":
                y = F.conv2d(y.relu() if branch.relu_before else y, next(rest), padding=padding)
            elif branch.kind == "max_pool":
                y = F.max_pool2d(y, branch.kernel, 1, padding)
            elif branch.kind == "avg_pool":
                y = F.avg_pool2d(y, branch.kernel, 1, padding, count_include_pad=False)
            if branch.has_norm:
                y = F.batch_norm(y, None, None, next(rest), next(rest), True, eps=branch.epsilon)
        y = y.relu() if branch.relu_after else y
        total = total + (y if step.gates is None else step.gates[number] * y)
    return total


def chain(inputs: Sequence[Tensor], steps: Sequence[Step]) -> list[Tensor]:
    values = list(inputs)
    for step in steps:
        values.append(by_pytorch(step, [values[i] for i in step.inputs]))
    return values


def leaves_of(inputs: Sequence[Tensor], steps: Sequence[Step]) -> list[Tensor]:
    own = [[*s.weights, *([] if s.gates is None else [s.gates])] for s in steps]
    return [*inputs, *(each for group in own for each in group)]


def gradients_of(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    draw = Operands(77)
    upstream = [draw.image(*each.shape).to(each.dtype) for each in outputs]
    found = torch.autograd.grad(outputs, leaves, upstream, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("name", "tolerance"), [("plain", 1e-9), ("cpu", 2e-4)])
def test_values_and_gradients_are_pytorchs(name: str, tolerance: float, seed: int) -> None:
    backend = backend_of(name)
    dtype = torch.float64 if name == "plain" else torch.float32
    inputs, steps = random_region(seed, dtype)
    exact_inputs, exact_steps = random_region(seed, torch.float64)
    wanted = [4, 9, 7]  # one of them is read by others too
    found, statistics = region(backend, inputs, steps, wanted)
    values = chain(exact_inputs, exact_steps)
    assert len(statistics) == len(steps)
    for got, place in zip(found, wanted, strict=True):
        torch.testing.assert_close(got.double(), values[place], atol=tolerance, rtol=tolerance)
    got = gradients_of(found, leaves_of(inputs, steps))
    exact = gradients_of([values[i] for i in wanted], leaves_of(exact_inputs, exact_steps))
    masked = [gate == 0 for s in exact_steps if s.gates is not None for gate in s.gates]
    assert any(each.abs().sum() > 0 for each in exact)
    for ours, theirs in zip(got, exact, strict=True):
        if ours.ndim == 1 and any(masked) and len(ours) == 2:
            continue  # gates: a branch that is switched off gets none
        scale = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(
            ours.double() / scale, theirs / scale, atol=5 * tolerance, rtol=5 * tolerance
        )


def test_what_is_passed_on_to_an_input_that_needs_nothing_is_dropped() -> None:
    inputs, steps = two_sums()
    other = inputs[0].detach().clone().requires_grad_()
    inputs[0].requires_grad_(False)
    steps = [Step(PLANS[0], (0, 1), []), Step(PLANS[0], (2, 0), [])]
    (y,), _ = region(ready("cpu"), [inputs[0], other], steps, [3])
    y.sum().backward()
    assert inputs[0].grad is None
    torch.testing.assert_close(other.grad, torch.ones_like(other))


@pytest.mark.parametrize("frozen", ["inputs", "weights", "gates"])
def test_what_needs_no_gradient_changes_no_other(frozen: str) -> None:
    inputs, steps = random_region(3, torch.float64)
    every = leaves_of(inputs, steps)
    before = gradients_of(region(Exact(), inputs, steps, [9])[0], every)
    groups = {
        "inputs": inputs,
        "weights": [each for step in steps for each in step.weights],
        "gates": [step.gates for step in steps if step.gates is not None],
    }
    assert groups[frozen]
    for each in groups[frozen]:
        each.requires_grad_(False)
    ids = [id(each) for each in groups[frozen]]
    kept = [i for i, each in enumerate(every) if id(each) not in ids]
    after = gradients_of(region(Exact(), inputs, steps, [9])[0], [every[i] for i in kept])
    for number, value in zip(kept, after, strict=True):
        torch.testing.assert_close(value, before[number])


def two_sums() -> tuple[list[Tensor], list[Step]]:
    """(x + x) + x: nothing but gradients that are passed on."""
    x = Operands().image(IMAGES, CHANNELS, SIDE, SIDE).requires_grad_()
    return [x], [Step(PLANS[0], (0, 0), []), Step(PLANS[0], (1, 0), [])]


@pytest.mark.parametrize("name", ["plain", "cpu"])
def test_a_gradient_that_is_passed_on_is_not_written(name: str) -> None:
    inputs, steps = two_sums()
    (y,), _ = region(backend_of(name), inputs, steps, [2])
    gradient = Operands(5).image(*y.shape)
    before = gradient.clone()
    y.backward(gradient)
    assert torch.equal(gradient, before)
    torch.testing.assert_close(inputs[0].grad, 3 * before)


def test_a_graph_that_is_kept_gives_the_same_twice() -> None:
    inputs, steps = random_region(4, torch.float32)
    (y,), _ = region(ready("cpu"), inputs, steps, [9])
    first, second = (
        torch.autograd.grad(y.sum(), inputs, retain_graph=True, allow_unused=True) for _ in range(2)
    )
    for a, b in zip(first, second, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_a_value_that_nobody_reads_has_no_gradient() -> None:
    inputs, steps = two_sums()
    draw = Operands()
    unread = Step(
        PLANS[5],
        (0,),
        [_leaf(w, torch.float32) for w in weights_of(Branch("conv", kernel=3), draw)],
    )
    (y,), _ = region(ready("cpu"), inputs, [*steps, unread], [2])
    y.sum().backward()
    assert all(each.grad is None for each in unread.weights)
    torch.testing.assert_close(inputs[0].grad, torch.full_like(inputs[0], 3.0))


def test_a_second_derivative_is_refused() -> None:
    inputs, steps = random_region(0, torch.float32)
    (y,), _ = region(ready("cpu"), inputs, steps, [9])
    found = torch.autograd.grad(y.sum(), inputs, create_graph=True, allow_unused=True)
    with pytest.raises(UserInputError, match="second derivative"):
        sum(each.square().sum() for each in found if each is not None).backward()  # type: ignore[union-attr]


def test_hooks_on_saved_tensors_may_change_their_layout() -> None:
    inputs, steps = random_region(1, torch.float32)
    leaves = leaves_of(inputs, steps)
    before = gradients_of(region(ready("cpu"), inputs, steps, [9])[0], leaves)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x.contiguous()):
        after = gradients_of(region(ready("cpu"), inputs, steps, [9])[0], leaves)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b)


class Counted(TorchDispatchMode):
    """Names of the operators that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_modes_see_operators() -> None:
    inputs, steps = random_region(2, torch.float32)
    expected = region(ready("cpu"), inputs, steps, [9])[0][0]
    with Counted() as counted:
        found = region(ready("cpu"), inputs, steps, [9])[0][0]
    assert counted.names.count("hwnas.mixed_op.default") == len(steps)
    assert torch.equal(found, expected)


def test_a_region_can_be_compiled() -> None:
    inputs, steps = two_sums()
    inputs[0].requires_grad_(False)
    backend = ready("cpu")
    compiled = torch.compile(
        lambda x: region(backend, [x], steps, [2])[0][0], backend="aot_eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(inputs[0]), 3 * inputs[0])


def test_calls_that_are_held_back_run_in_order_and_are_dropped_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = ready("cpu")
    inputs, steps = random_region(2, torch.float32)
    expected = region(backend, inputs, steps, [9])[0][0]
    with monkeypatch.context() as patched:
        patched.setattr(_cpu_queue, "_MOST_HELD", 1)
        assert torch.equal(region(backend, inputs, steps, [9])[0][0], expected)
    bad = Step(steps[-1].plan, steps[-1].inputs, [*steps[-1].weights, inputs[0]])
    with pytest.raises(ShapeError, match="weights"):
        region(backend, inputs, [*steps[:-1], bad], [9])
    assert not _cpu_queue._held.calls
    assert not _cpu_queue._held.depth
    assert torch.equal(region(backend, inputs, steps, [9])[0][0], expected)


def test_the_norm_of_an_identity_needs_statistics() -> None:
    x = Operands().image(IMAGES, CHANNELS, SIDE, SIDE)
    norm = [torch.ones(CHANNELS), torch.zeros(CHANNELS)]
    with pytest.raises(ShapeError, match="statistics of its own"):
        region(ready("cpu"), [x], [Step(Plan((Branch("identity"),)), (0,), norm)], [1])


def test_the_first_owner_hands_a_gradient_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """An identity beside another branch costs no copy of the gradient."""
    copies = []
    make = Gradients._make

    def counted(self: Gradients, place: int) -> Tensor:
        copies.append(place)
        return make(self, place)

    monkeypatch.setattr(region_module.Gradients, "_make", counted)
    draw = Operands()
    x = draw.image(IMAGES, CHANNELS, SIDE, SIDE).requires_grad_()

    def weights() -> list[Tensor]:
        return [_leaf(w, torch.float32) for w in weights_of(PLANS[2].branches[1], draw)]

    steps = [Step(PLANS[1], (0, 0), [*weights(), *weights()]), Step(PLANS[5], (1,), _conv(draw))]
    backend: Backend = ready("cpu")
    (y,), _ = region(backend, [x], steps, [2])
    y.sum().backward()
    assert copies == [1, 0], "the identity's input borrowed, then got one of its own to add to"


def _conv(draw: Operands) -> list[Tensor]:
    return [_leaf(w, torch.float32) for w in weights_of(PLANS[5].branches[0], draw)]
