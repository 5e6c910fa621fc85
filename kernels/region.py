"""Several fused ops in a row as one step of autograd.

Between ops, autograd would cost as much as small kernels do, and where a value has several
readers it adds their gradients in passes of its own; here each reader adds to what is there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hwnas.kernels import stages
from hwnas.kernels._layout import filters, images, laid_out, moments
from hwnas.kernels.checks import check, taken
from hwnas.kernels.gradients import Gradients, Targets
from hwnas.kernels.mixed_op import (
    active_branches,
    batch_statistics,
    mixed_op,
    no_double_backward,
)
from hwnas.kernels.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.backend import Backend

#: What is not a subclass with a behaviour of its own.
_ORDINARY = frozenset({torch.Tensor, torch.nn.Parameter})


@dataclass(frozen=True, slots=True)
class Step:
    """One fused op of a region.

    Values are numbered: first the region's inputs, then the result of each step.

    Attributes:
        plan: What is run.
        inputs: Numbers of the values that it reads.
        weights: Of the plan.
        statistics: `[2, C]` running statistics of each norm, or nothing for the batch's own.
        gates: `[B]`, if the plan is gated.
    """

    plan: Plan
    inputs: tuple[int, ...]
    weights: Sequence[Tensor]
    statistics: Sequence[Tensor] = ()
    gates: Tensor | None = None


def region(
    backend: Backend, inputs: Sequence[Tensor], steps: Sequence[Step], outputs: Sequence[int]
) -> tuple[list[Tensor], list[list[Tensor | None]]]:
    """Run fused ops one after the other; see `hwnas.kernels.mixed_op` for each of them.

    Args:
        backend: Offers all plans.
        inputs: `[N, C, H, W]` each.
        steps: What is run.
        outputs: Numbers of the values that are wanted.

    Raises:
        ShapeError: Operands do not fit a plan.

    Returns:
        The wanted values, and for each step the batch's statistics as `mixed_op` returns them.
    """
    tensors = list(inputs)
    for step in steps:
        tensors += _tensors_of(step)
    if _is_watched(tensors):
        return _through_operators(backend, inputs, steps, outputs)
    call = _Call(backend, len(inputs), steps, outputs)
    found: Sequence[Tensor] = _Region.apply(call, *tensors)  # type: ignore[no-untyped-call]
    return list(found), call.statistics


def _tensors_of(step: Step) -> list[Tensor]:
    gates = [] if step.gates is None else [step.gates]
    return [*step.weights, *step.statistics, *gates]


def _is_watched(tensors: Sequence[Tensor]) -> bool:
    """Whether anything but autograd looks at operators: a tracer, a mode, a transformed tensor.

    What it shall see must pass PyTorch's dispatcher.
    """
    return (
        torch.compiler.is_compiling()  # first: what follows cannot be traced
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._is_tracing()
        or not _ORDINARY.issuperset(map(type, tensors))
        or tensors[0].is_meta
    )


def _through_operators(
    backend: Backend, inputs: Sequence[Tensor], steps: Sequence[Step], outputs: Sequence[int]
) -> tuple[list[Tensor], list[list[Tensor | None]]]:
    values = list(inputs)
    found = []
    for step in steps:
        y, statistics = mixed_op(
            step.plan,
            [values[i] for i in step.inputs],
            step.weights,
            backend=backend.name,
            statistics=step.statistics,
            gates=step.gates,
        )
        values.append(y)
        found.append(statistics)
    return [values[place] for place in outputs], found


@dataclass(frozen=True, slots=True)
class _Taken:
    """What of a step is not a tensor, and how many tensors it has."""

    plan: Plan
    inputs: tuple[int, ...]
    weights: int
    statistics: int
    has_gates: bool
    active: Sequence[bool]


class _Call:
    """What of a call is not a tensor.

    Args:
        backend: Runs the stages.
        inputs: Number of the region's inputs.
        steps: What is run.
        outputs: Numbers of the values that are wanted.
    """

    def __init__(
        self, backend: Backend, inputs: int, steps: Sequence[Step], outputs: Sequence[int]
    ) -> None:
        self.backend = backend
        self.inputs = inputs
        self.outputs = outputs
        self.steps = [
            _Taken(
                step.plan,
                step.inputs,
                len(step.weights),
                len(step.statistics),
                step.gates is not None,
                [True] * len(step.plan.branches)
                if step.gates is None
                else active_branches(step.gates),
            )
            for step in steps
        ]
        #: Of each step, as `mixed_op` returns them.
        self.statistics: list[list[Tensor | None]] = []
        #: How many tensors each step saved.
        self.saved: list[int] = []

    def operands(
        self, tensors: Sequence[Tensor]
    ) -> Iterator[tuple[_Taken, list[Tensor], list[Tensor], Tensor | None]]:
        """Yield each step with its weights, statistics and gates, out of a flat list."""
        rest = iter(tensors[self.inputs :])
        for step in self.steps:
            weights = filters(list(itertools.islice(rest, step.weights)))
            statistics = list(itertools.islice(rest, step.statistics))
            yield step, weights, statistics, next(rest) if step.has_gates else None

    def forward(self, tensors: Sequence[Tensor], saved: list[Tensor] | None) -> list[Tensor]:
        """Return all values; `saved` receives what a backward pass needs, if there is to be one."""
        backend = self.backend
        values = images(tensors[: self.inputs])
        with backend.together():
            for step, weights, statistics, gates in self.operands(tensors):
                own = [values[i] for i in step.inputs]
                check(step.plan, own, weights, statistics, gates, step.active)
                y, kept = stages.forward(
                    taken(backend, step.plan, own[0]),
                    step.plan,
                    own,
                    weights,
                    moments(statistics, own[0]),
                    gates,
                    step.active,
                )
                values.append(y)
                found = [] if statistics else batch_statistics(step.plan, step.active, kept)
                self.statistics.append(found)
                self.saved.append(len(kept))
                if saved is not None:
                    saved += kept
        return values

    def backward(
        self,
        gradients: Sequence[Tensor | None],
        tensors: Sequence[Tensor],
        values: Sequence[Tensor],
        saved: Sequence[Tensor],
        needed: Sequence[bool],
    ) -> list[Tensor | None]:
        """Return the gradient of each of `tensors`, where it is needed."""
        backend = self.backend
        dxs = Gradients(backend, values, self._wanted(needed), may_borrow=True)
        for place, gradient in zip(self.outputs, gradients, strict=True):
            if gradient is not None:
                dxs.give(place, laid_out(gradient))
        steps = list(self.operands(tensors))
        end = len(saved)
        results: list[list[Tensor | None]] = []
        with backend.together():
            for number in range(len(steps) - 1, -1, -1):
                kept = [laid_out(each) for each in saved[end - self.saved[number] : end]]
                end -= len(kept)
                step, weights, statistics, gates = steps[number]
                gradient, is_own = dxs.take(self.inputs + number)
                if gradient is None:
                    results.append([None] * (len(weights) + len(statistics) + step.has_gates))
                    continue
                own = [values[i] for i in step.inputs]
                d_weights, d_gates = stages.backward(
                    backend,
                    step.plan,
                    gradient,
                    own,
                    weights,
                    moments(statistics, own[0]),
                    gates,
                    kept,
                    step.active,
                    Targets(dxs, step.inputs),
                )
                if is_own:
                    dxs.hand_over(gradient)
                found = iter(d_weights)
                results.append(
                    [
                        next(found) if is_active else None
                        for at, is_active in zip(step.plan.weight_slices, step.active, strict=True)
                        for _ in range(at.start, at.stop)
                    ]
                    + [None] * len(statistics)
                    + ([d_gates] if step.has_gates else [])
                )
            first = dxs.results(self.inputs)
        return [*first, *itertools.chain.from_iterable(reversed(results))]

    def _wanted(self, needed: Sequence[bool]) -> list[bool]:
        """Return which values' gradients are wanted: those that depend on what needs one."""
        wanted = list(needed[: self.inputs])
        start = self.inputs
        for step in self.steps:
            end = start + step.weights + step.statistics + step.has_gates
            wanted.append(any(needed[start:end]) or any(wanted[i] for i in step.inputs))
            start = end
        return wanted


class _Region(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        saved: list[Tensor] = []
        values = call.forward(tensors, saved if any(ctx.needs_input_grad) else None)
        ctx.call = call
        ctx.counts = (len(tensors), len(values))
        ctx.save_for_backward(*tensors, *values, *saved)
        ctx.set_materialize_grads(False)
        return tuple(values[place] for place in call.outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        kept = ctx.saved_tensors
        inputs, values = ctx.counts
        with torch.no_grad():
            found = call.backward(
                gradients,
                kept[:inputs],
                images(kept[inputs : inputs + values]),
                kept[inputs + values :],
                ctx.needs_input_grad[1:],
            )
        if torch.is_grad_enabled():  # create_graph
            found = _refusing(found)
        return None, *found


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(each.view_as(each) for each in tensors)

    backward = staticmethod(no_double_backward)


def _refusing(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return gradients whose own derivative raises."""
    given = [each.detach().requires_grad_() for each in gradients if each is not None]
    rest = iter(_Once.apply(*given))  # type: ignore[no-untyped-call]
    return [None if each is None else next(rest) for each in gradients]
