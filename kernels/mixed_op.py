"""`hwnas::mixed_op`: the gated sum of branches, which every fused image op is a case of.

One branch without a gate is a separable convolution, a pooling with batch norm, …; two are a node
of an ENAS cell; gates on several are ProxylessNAS' pair of paths or DARTS' mixture. A branch that
is not active costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from hwnas.errors import ShapeError, UserInputError
from hwnas.kernels import stages
from hwnas.kernels._layout import filters, images, laid_out, moments, wide
from hwnas.kernels.backends import backend_named
from hwnas.kernels.checks import check, taken
from hwnas.kernels.gradients import Gradients, Targets
from hwnas.kernels.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor


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
    return y, batch_statistics(plan, active, saved)


def batch_statistics(
    plan: Plan, active: Sequence[bool], saved: Sequence[Tensor]
) -> list[Tensor | None]:
    """Return the batch's `[2, C]` statistics of each norm out of what a forward pass saved."""
    found = (each for each in saved if each.ndim == 2)
    return [
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
        taken(backend_named(backend), parsed, inputs[0]),
        parsed,
        images(inputs),
        filters(weights),
        moments(statistics, inputs[0]),
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
    chosen = taken(backend_named(backend), parsed, inputs[0])
    inputs = images(inputs)
    gradients = Gradients(chosen, inputs, wanted)
    d_weights, d_gates = stages.backward(
        chosen,
        parsed,
        gradient.contiguous(memory_format=torch.channels_last),
        inputs,
        filters(weights),
        moments(statistics, inputs[0]),
        gates,
        # Hooks on saved tensors (offloading, compression) may hand back another layout.
        [laid_out(each) for each in saved],
        active,
        Targets(gradients, range(len(inputs))),
    )
    # Two results of an operator must not share memory; gradients of norms are rows of one tensor.
    d_weights = [each.clone() if each.ndim == 1 else each for each in d_weights]
    d_inputs = [each for each in gradients.results(len(inputs)) if each is not None]
    return d_inputs, d_weights, d_gates


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
                saved.append(inputs[0].new_empty((2, shape[1]), dtype=wide(inputs[0].dtype)))
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


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, list[Tensor]]) -> None:
    images, weights, statistics, gates, active, plan, backend = inputs
    saved = output[1]
    ctx.counts = (len(images), len(weights), len(statistics))
    ctx.call = (active, plan, backend)
    ctx.has_gates = gates is not None
    ctx.save_for_backward(
        *images, *weights, *statistics, *([gates] if ctx.has_gates else []), *saved
    )
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, gradient: Tensor | None, _: Any) -> tuple[Any, ...]:
    """Return the gradient of each operand of `mixed_op`; `saved` has none."""
    tensors = iter(ctx.saved_tensors)
    inputs, weights, statistics = ([next(tensors) for _ in range(n)] for n in ctx.counts)
    gates = next(tensors) if ctx.has_gates else None
    nothing = [None] * len(inputs), [None] * len(weights), [None] * len(statistics)
    if gradient is None:
        return (*nothing, None, None, None, None)
    active, plan, backend = ctx.call
    wanted = list(ctx.needs_input_grad[0])
    operands = (gradient, inputs, weights, statistics, gates, list(tensors), active, wanted)
    d_inputs, d_weights, d_gates = torch.ops.hwnas.mixed_op_backward(*operands, plan, backend)
    dxs, dws = iter(d_inputs), iter(d_weights)
    return (
        [next(dxs) if is_wanted else None for is_wanted in wanted],
        [
            next(dws) if is_active else None
            for at, is_active in zip(Plan.parse(plan).weight_slices, active, strict=True)
            for _ in range(at.start, at.stop)
        ],
        nothing[2],
        d_gates if ctx.has_gates else None,
        None,
        None,
        None,
    )


def _nothing_to_save(ctx: Any, inputs: Any, output: Any) -> None:
    """Let the graph end here: what follows raises."""


def no_double_backward(ctx: Any, *_: Any) -> NoReturn:
    """Refuse a second derivative.

    Raises:
        UserInputError: Always.
    """
    raise UserInputError(
        "fused kernels have no second derivative",
        "run with HWNAS_KERNELS=reference where gradients of gradients are needed",
    )


for _key in ("CPU", "CUDA"):
    _LIBRARY.impl("mixed_op", _run, _key)
    _LIBRARY.impl("mixed_op_backward", _run_backward, _key)
torch.library.register_fake("hwnas::mixed_op", _fake, lib=_LIBRARY)
torch.library.register_fake("hwnas::mixed_op_backward", _fake_backward, lib=_LIBRARY)
torch.library.register_autograd(
    "hwnas::mixed_op", _differentiate, setup_context=_save, lib=_LIBRARY
)
torch.library.register_autograd(
    "hwnas::mixed_op_backward",
    no_double_backward,
    setup_context=_nothing_to_save,
    lib=_LIBRARY,
)
