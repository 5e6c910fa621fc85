"""`hwnas::mixed_op`: the gated sum of branches, which every fused image op is a case of.

One branch without a gate is a separable convolution, a pooling with batch norm, …; two are a node
of an ENAS cell; gates on several are ProxylessNAS' pair of paths or DARTS' mixture. A branch that
is not active costs nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from hwnas.errors import ShapeError, UserInputError
from hwnas.kernels import stages
from hwnas.kernels.backends import backend_named
from hwnas.kernels.checks import check
from hwnas.kernels.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.backend import Backend

_LIBRARY = torch.library.Library("hwnas", "FRAGMENT")
_LIBRARY.define(
    "mixed_op(Tensor[] inputs, Tensor[] weights, Tensor[] statistics, Tensor? gates, "
    "bool[] active, str plan, str backend) -> (Tensor, Tensor[])",
    tags=[torch.Tag.needs_fixed_stride_order],
)
_LIBRARY.define(
    "mixed_op_backward(Tensor gradient, Tensor[] inputs, Tensor[] weights, Tensor[] statistics, "
    "Tensor? gates, Tensor[] saved, bool[] active, bool[] wanted, str plan, str backend) "
    "-> (Tensor[], Tensor[], Tensor)",
    tags=[torch.Tag.needs_fixed_stride_order],
)


def mixed_op(
    plan: Plan,
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    *,
    backend: str,
    statistics: Sequence[Tensor] = (),
    gates: Tensor | None = None,
    active: Sequence[bool] | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """Return ``sum over b of gates[b] * branch_b(inputs)``.

    Args:
        plan: The branches.
        inputs: `[N, C, H, W]` each, of one size and dtype.
        weights: Of all branches, one after the other, in the order that `Branch` gives.
        backend: Name of the backend whose stages run.
        statistics: `[2, C]` float32 running mean and biased variance of every norm; without them
            the batch's own are used.
        gates: `[B]`, with gradients for the active branches.
        active: Which branches take part. Without it, those whose gate is not exactly zero; gates
            on a GPU are not read, there all are active.

    Raises:
        ShapeError: Operands do not fit the plan.

    Returns:
        `[N, D, P, Q]`, and the batch's `[2, C]` statistics of each norm (None for those of a
        branch that is not active; nothing where `statistics` are given).
    """
    if active is None:
        active = [True] * len(plan.branches) if gates is None else active_branches(gates)
    y, saved = torch.ops.hwnas.mixed_op(
        inputs, weights, statistics, gates, active, plan.text, backend
    )
    if statistics:
        return y, []
    found = (each for each in saved if each.ndim == 2)
    return y, [
        next(found) if is_active else None
        for branch, is_active in zip(plan.branches, active, strict=True)
        for _ in range(branch.norm_count)
    ]


def active_branches(gates: Tensor) -> list[bool]:
    """Return which branches take part: those whose gate is not exactly zero.

    Gates on a GPU are not read, because that would wait for the device, nor are those of a traced
    call: there all branches take part, and a gate of zero has a gradient.
    """
    if gates.device.type != "cpu" or torch.compiler.is_compiling():
        return [True] * gates.numel()
    return [value != 0 for value in gates.tolist()]


def _channels_last(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [each.contiguous(memory_format=torch.channels_last) for each in tensors]


def _laid_out(tensor: Tensor) -> Tensor:
    if tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor.contiguous()


def _wide(statistics: Sequence[Tensor], x: Tensor) -> list[Tensor]:
    return [each.to(x.device, stages.wide(x.dtype)).contiguous() for each in statistics]


def _taking(name: str, plan: Plan, x: Tensor) -> Backend:
    """Return the backend; kernels get addresses, so it must take what lies there.

    Raises:
        UserInputError: It does not.
    """
    backend = backend_named(name)
    if not (backend.offers(plan) and (backend.accepts(x.device, x.dtype) or x.is_meta)):
        kinds = ", ".join(f"{each.kind} {each.kernel}x{each.kernel}" for each in plan.branches)
        raise UserInputError(
            f"the kernel backend {name!r} does not take {kinds} in {x.dtype} on {x.device}",
            "leave the choice to hwnas: hwnas.kernels.chosen(device, dtype)",
        )
    return backend


def _contiguous(weights: Sequence[Tensor]) -> list[Tensor]:
    return [each if each.ndim == 4 else each.contiguous() for each in weights]


def _run(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    statistics: Sequence[Tensor],
    gates: Tensor | None,
    active: Sequence[bool],
    plan: str,
    backend: str,
) -> tuple[Tensor, list[Tensor]]:
    parsed = Plan.parse(plan)
    check(parsed, inputs, weights, statistics, gates, active)
    return stages.forward(
        _taking(backend, parsed, inputs[0]),
        parsed,
        _channels_last(inputs),
        _contiguous(weights),
        _wide(statistics, inputs[0]),
        gates,
        active,
    )


def _run_backward(
    gradient: Tensor,
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    statistics: Sequence[Tensor],
    gates: Tensor | None,
    saved: Sequence[Tensor],
    active: Sequence[bool],
    wanted: Sequence[bool],
    plan: str,
    backend: str,
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    parsed = Plan.parse(plan)
    shape = check(parsed, inputs, weights, statistics, gates, active)
    if tuple(gradient.shape) != shape:
        raise ShapeError(f"mixed_op: the gradient is {shape}, got {tuple(gradient.shape)}")
    return stages.backward(
        _taking(backend, parsed, inputs[0]),
        parsed,
        gradient.contiguous(memory_format=torch.channels_last),
        _channels_last(inputs),
        _contiguous(weights),
        _wide(statistics, inputs[0]),
        gates,
        # Hooks on saved tensors (offloading, compression) may hand back another layout.
        [_laid_out(each) for each in saved],
        active,
        wanted,
    )


def _fake_image(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(
        shape,
        dtype=dtype or like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )


def _fake(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    statistics: Sequence[Tensor],
    gates: Tensor | None,
    active: Sequence[bool],
    plan: str,
    backend: str,
) -> tuple[Tensor, list[Tensor]]:
    """Shapes of what `stages.forward` returns."""
    parsed = Plan.parse(plan)
    saved: list[Tensor] = []
    for number, (branch, at) in enumerate(zip(parsed.branches, parsed.weight_slices, strict=True)):
        if not active[number]:
            continue
        for _ in range(branch.stages):
            shape = stages.output_shape(Plan((branch,)), inputs, weights[at])
            if branch.kind == "max_pool":
                saved.append(_fake_image(inputs[0], shape, torch.uint8))
            if branch.has_norm or (gates is not None and branch.kind != "identity"):
                saved.append(_fake_image(inputs[0], shape))
            if branch.has_norm and not statistics:
                saved.append(inputs[0].new_empty((2, shape[1]), dtype=stages.wide(inputs[0].dtype)))
    return _fake_image(inputs[0], stages.output_shape(parsed, inputs, weights)), saved


def _fake_backward(
    gradient: Tensor,
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    statistics: Sequence[Tensor],
    gates: Tensor | None,
    saved: Sequence[Tensor],
    active: Sequence[bool],
    wanted: Sequence[bool],
    plan: str,
    backend: str,
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    d_inputs = [
        _fake_image(x, x.shape) for x, is_wanted in zip(inputs, wanted, strict=True) if is_wanted
    ]
    d_weights = [each.new_empty(each.shape) for each in _of_active(plan, active, weights)]
    return d_inputs, d_weights, gradient.new_empty(0) if gates is None else torch.empty_like(gates)


def _of_active(plan: str, active: Sequence[bool], weights: Sequence[Any]) -> list[Any]:
    slices = Plan.parse(plan).weight_slices
    return [
        each
        for at, is_active in zip(slices, active, strict=True)
        if is_active
        for each in weights[at]
    ]


def _below_autograd() -> contextlib.AbstractContextManager[Any]:
    return torch._C._AutoDispatchBelowAutograd()


class _MixedOp(torch.autograd.Function):
    """The operator's autograd, over a flat list of tensors.

    `torch.library.register_autograd` would walk the nested lists several times a call, which for a
    supernet's some seventy calls a step costs as much as ten kernels.
    """

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        images, weights, statistics, gates, _ = call.split(tensors)
        with _below_autograd():
            y, saved = torch.ops.hwnas.mixed_op(
                images, weights, statistics, gates, call.active, call.plan, call.backend
            )
        ctx.call = call
        ctx.save_for_backward(*tensors, *saved)
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)
        return y, *saved

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        gradient = gradients[0]
        if gradient is None:
            return (None,) * len(ctx.needs_input_grad)
        images, weights, statistics, gates, saved = call.split(ctx.saved_tensors)
        plan = Plan.parse(call.plan)
        wanted = ctx.needs_input_grad[1 : 1 + call.inputs]
        passed_on = [w and _is_passed_on(plan, call.active, i, gates) for i, w in enumerate(wanted)]
        computed = [w and not p for w, p in zip(wanted, passed_on, strict=True)]
        operands = (gradient, images, weights, statistics, gates, saved, call.active, computed)
        # Without create_graph nothing can ask for a second derivative: no need to refuse one.
        guard = contextlib.nullcontext() if torch.is_grad_enabled() else _below_autograd()
        with guard:
            d_inputs, d_weights, d_gates = torch.ops.hwnas.mixed_op_backward(
                *operands, call.plan, call.backend
            )
        found = iter(d_inputs)
        result: list[Tensor | None] = [None]
        for p, c in zip(passed_on, computed, strict=True):
            result.append(gradient if p else next(found) if c else None)
        rest = iter(d_weights)
        for at, is_active in zip(plan.weight_slices, call.active, strict=True):
            result += [next(rest) if is_active else None for _ in range(at.start, at.stop)]
        result += [None] * call.statistics
        return (*result, d_gates) if call.has_gates else tuple(result)


@dataclass(frozen=True, slots=True)
class _Call:
    """What of a call is not a tensor, and how the flat list of tensors is made of groups."""

    inputs: int
    weights: int
    statistics: int
    has_gates: bool
    active: Sequence[bool]
    plan: str
    backend: str

    def split(
        self, tensors: Sequence[Tensor]
    ) -> tuple[
        Sequence[Tensor], Sequence[Tensor], Sequence[Tensor], Tensor | None, Sequence[Tensor]
    ]:
        """Return inputs, weights, statistics, gates and what follows them."""
        first = self.inputs + self.weights
        last = first + self.statistics
        return (
            tensors[: self.inputs],
            tensors[self.inputs : first],
            tensors[first:last],
            tensors[last] if self.has_gates else None,
            tensors[last + self.has_gates :],
        )


def _differentiable(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    statistics: Sequence[Tensor],
    gates: Tensor | None,
    active: Sequence[bool],
    plan: str,
    backend: str,
) -> tuple[Tensor, list[Tensor]]:
    tensors = [*inputs, *weights, *statistics, *([] if gates is None else [gates])]
    counts = (len(inputs), len(weights), len(statistics))
    y, *saved = _MixedOp.apply(  # type: ignore[no-untyped-call]
        _Call(*counts, gates is not None, active, plan, backend), *tensors
    )
    return y, saved


def _is_passed_on(plan: Plan, active: Sequence[bool], index: int, gates: Tensor | None) -> bool:
    """Whether an input's gradient is the output's: its only reader is an ungated identity."""
    readers = [
        branch
        for branch, is_active in zip(plan.branches, active, strict=True)
        if is_active and index in branch.inputs
    ]
    return gates is None and len(readers) == 1 and readers[0].is_plain


def _nothing_to_save(ctx: Any, inputs: Any, output: Any) -> None:
    """Let the graph end here: what follows raises."""


def _no_double_backward(ctx: Any, *_: Any) -> NoReturn:
    raise UserInputError(
        "fused kernels have no second derivative",
        "run with HWNAS_KERNELS=reference where gradients of gradients are needed",
    )


for _key in ("CPU", "CUDA"):
    _LIBRARY.impl("mixed_op", _run, _key)
    _LIBRARY.impl("mixed_op_backward", _run_backward, _key)
torch.library.register_fake("hwnas::mixed_op", _fake, lib=_LIBRARY)
torch.library.register_fake("hwnas::mixed_op_backward", _fake_backward, lib=_LIBRARY)
_LIBRARY.impl("mixed_op", _differentiable, "Autograd")
torch.library.register_autograd(
    "hwnas::mixed_op_backward",
    _no_double_backward,
    setup_context=_nothing_to_save,
    lib=_LIBRARY,
)
