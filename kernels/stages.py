"""Forward and backward of a plan, put together from the stages of a backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from hwnas.kernels.backend import Backend, Norm, Upstream
from hwnas.kernels.gradients import Targets
from hwnas.kernels.plan import Branch, Plan

if TYPE_CHECKING:
    from torch import Tensor


def forward(
    backend: Backend,
    plan: Plan,
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    statistics: Sequence[Tensor],
    gates: Tensor | None,
    active: Sequence[bool],
) -> tuple[Tensor, list[Tensor]]:
    """Run a plan.

    Args:
        backend: Whose stages run.
        plan: What to run.
        inputs: `[N, C, H, W]`, channels_last.
        weights: Of all branches, one after the other.
        statistics: Running `[2, C]` of all norms, or none for the batch's own.
        gates: `[B]` or None for ones.
        active: Whether each branch takes part; the others cost nothing.

    Returns:
        `[N, D, P, Q]` and what `backward` needs, branch after branch: each stage's z and, for
        batch statistics, its statistics; a max pool's index. The z that nothing needs again is
        left out.
    """
    zs: list[Tensor] = []
    norms: list[Norm | None] = []
    chosen: list[int] = []
    saved: list[Tensor] = []
    relu = False
    needs_z = gates is not None
    places = zip(plan.branches, plan.weight_slices, plan.norm_slices, strict=True)
    for number, (branch, at_weights, at_norms) in enumerate(places):
        if not active[number]:
            continue
        z, norm = _branch_forward(
            backend, branch, inputs, weights[at_weights], statistics[at_norms], saved, needs_z
        )
        zs.append(z)
        norms.append(norm)
        chosen.append(number)
        relu = branch.relu_after
    if not zs:
        return _zeros(backend, plan, inputs, weights), saved
    lacks_nothing = len(zs) == 1 and norms[0] is None and gates is None
    if lacks_nothing and not plan.branches[chosen[0]].is_plain:  # a plain one would be its input
        return zs[0], saved
    return backend.combine(
        zs, norms, None if gates is None else _chosen(gates, chosen), relu
    ), saved


def backward(
    backend: Backend,
    plan: Plan,
    gradient: Tensor,
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    statistics: Sequence[Tensor],
    gates: Tensor | None,
    saved: Sequence[Tensor],
    active: Sequence[bool],
    targets: Targets,
) -> tuple[list[Tensor], Tensor]:
    """Run a plan backwards.

    Args:
        backend: Whose stages run.
        plan: What was run.
        gradient: `[N, D, P, Q]`, channels_last.
        inputs: As in `forward`.
        weights: As in `forward`.
        statistics: As in `forward`.
        gates: As in `forward`.
        saved: From `forward`.
        active: As in `forward`.
        targets: Takes the gradients of the inputs.

    Returns:
        Gradients of the weights of the active branches (those of norms are views), and of the
        gates (empty without gates; 0 for a branch that is not active).
    """
    tape = _read_tape(plan, inputs, weights, statistics, saved, active, gates is not None)
    dweights: list[Tensor] = []
    relu = any(each.branch.relu_after for each in tape)
    dgates = gradient.new_zeros(0 if gates is None else len(plan.branches))
    sums = gated = None
    if tape and (gates is not None or any(each.branch.has_norm for each in tape)):
        sums = backend.combine_backward(
            gradient, [each.zs[-1] for each in tape], [each.norms[-1] for each in tape], relu
        )
        gated = sums
        if gates is not None:
            backend.catch_up()
            chosen = [each.number for each in tape]
            gated = sums * _chosen(gates, chosen).view(-1, 1, 1)
            found = _gate_gradients(sums, [each.norms[-1] for each in tape])
            for number, value in zip(chosen, found, strict=True):
                dgates[number] = value
    for place, each in enumerate(tape):
        norm = each.norms[-1]
        own = None if sums is None or norm is None else sums[place]
        behind = None if gated is None or norm is None else gated[place]
        place_in_sum = (gates, each.number, each.branch.relu_after)
        up = Upstream(gradient, each.zs[-1], norm, own, *place_in_sum)
        dweights += _branch_backward(backend, each, up, behind, inputs, targets)
    return _typed(dweights, tape), dgates


class _Taped:
    """An active branch with what its forward pass left."""

    def __init__(self, number: int, branch: Branch, weights: Sequence[Tensor]) -> None:
        self.number = number
        self.branch = branch
        self.weights = weights
        self.zs: list[Tensor | None] = []
        self.norms: list[Norm | None] = []
        self.index: Tensor | None = None


def _norm(
    branch: Branch, weights: Sequence[Tensor], stage: int, found: Tensor, is_batch: bool
) -> Norm:
    scale, shift = weights[(stage + 1) * branch.weights_per_stage - 2 :][:2]
    return Norm(found, scale, shift, branch.epsilon, is_batch)


def _branch_forward(
    backend: Backend,
    branch: Branch,
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    statistics: Sequence[Tensor],
    saved: list[Tensor],
    needs_z: bool,
) -> tuple[Tensor, Norm | None]:
    z, norm = inputs[branch.inputs[0]], None
    is_batch = branch.has_norm and not statistics
    for stage in range(branch.stages):
        own = weights[stage * branch.weights_per_stage :]
        window = branch.window(stage)
        found: Tensor | None = None
        if branch.kind == "separable":
            z, found = backend.separable(z, norm, window, own[0], own[1], is_batch)
        elif branch.kind == "conv":
            xs = [inputs[i] for i in branch.inputs]
            z, found = backend.conv(xs, branch.relu_before, window, own[0], is_batch)
        elif branch.kind == "reduction":
            z, found = backend.reduction(z, branch.relu_before, own[0], own[1], is_batch)
        elif branch.kind != "identity":
            is_max = branch.kind == "max_pool"
            z, index, found = backend.pool(z, is_max, window, is_batch)
            if index is not None:
                saved.append(index)
        if branch.has_norm or (needs_z and branch.kind != "identity"):
            saved.append(z)
        if branch.has_norm:
            if found is not None:
                saved.append(found)
            norm = _norm(
                branch, weights, stage, statistics[stage] if found is None else found, is_batch
            )
    return z, norm


def _read_tape(
    plan: Plan,
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    statistics: Sequence[Tensor],
    saved: Sequence[Tensor],
    active: Sequence[bool],
    needs_z: bool,
) -> list[_Taped]:
    """Give each active branch back what `_branch_forward` saved, in the same order."""
    rest = iter(saved)
    tape = []
    places = zip(plan.branches, plan.weight_slices, plan.norm_slices, strict=True)
    for number, (branch, at_weights, at_norms) in enumerate(places):
        if not active[number]:
            continue
        each = _Taped(number, branch, weights[at_weights])
        if branch.kind == "max_pool":
            each.index = next(rest)
        for stage in range(branch.stages):
            if branch.kind == "identity":
                each.zs.append(inputs[branch.inputs[0]])
            else:
                each.zs.append(next(rest) if branch.has_norm or needs_z else None)
            norm = None
            if branch.has_norm:
                is_batch = not statistics
                found = next(rest) if is_batch else statistics[at_norms][stage]
                norm = _norm(branch, each.weights, stage, found, is_batch)
            each.norms.append(norm)
        tape.append(each)
    return tape


def _branch_backward(
    backend: Backend,
    each: _Taped,
    up: Upstream,
    behind: Tensor | None,
    inputs: Sequence[Tensor],
    targets: Targets,
) -> list[Tensor]:
    """Return the gradients of the branch's weights, in their order.

    `behind` holds the gated sums of the norm behind the branch: the gradients of its shift and
    scale.
    """
    branch, weights, first = each.branch, each.weights, each.branch.inputs[0]
    if branch.kind == "separable":
        return _separable_backward(backend, each, up, behind, inputs[first], targets)
    own: list[Tensor] = []
    if branch.kind == "conv":
        xs = [inputs[i] for i in branch.inputs]
        found = [targets.target(i) for i in branch.inputs]
        dx, accumulate = [t for t, _ in found], [a for _, a in found]
        args = (branch.relu_before, branch.window(), weights[0])
        own = [backend.conv_backward(up, xs, *args, dx, accumulate)]
    elif branch.kind == "reduction":
        target = targets.target(first)
        own = list(
            backend.reduction_backward(
                up, inputs[first], branch.relu_before, weights[0], weights[1], *target
            )
        )
    elif not (branch.is_plain and up.gates is None and targets.pass_on(first, up.gradient)):
        buffer, add = targets.target(first)
        if buffer is not None and branch.kind == "identity":
            backend.accumulate(up, buffer, add)
        elif buffer is not None:
            is_max = branch.kind == "max_pool"
            backend.pool_backward(up, each.index, is_max, branch.window(), buffer, add)
    return own + _norm_gradients(behind)


def _separable_backward(
    backend: Backend,
    each: _Taped,
    up: Upstream,
    behind: Tensor | None,
    x: Tensor,
    targets: Targets,
) -> list[Tensor]:
    branch = each.branch
    gradients: list[Tensor] = []
    for stage in range(branch.stages - 1, -1, -1):
        depthwise, pointwise = each.weights[stage * branch.weights_per_stage :][:2]
        if stage == 0:
            source, norm = x, None
            target, accumulate = targets.scratch(branch.inputs[0])
        else:
            before = each.zs[stage - 1]
            assert before is not None
            source, norm = before, each.norms[stage - 1]
            target, accumulate = backend.empty(source, *source.shape[1:]), False
        d_depthwise, d_pointwise, sums = backend.separable_backward(
            up, source, norm, branch.window(stage), depthwise, pointwise, target, accumulate
        )
        gradients = [d_depthwise, d_pointwise, *_norm_gradients(behind), *gradients]
        up, behind = Upstream(target, source, norm, sums), sums
    return gradients


def _norm_gradients(sums: Tensor | None) -> list[Tensor]:
    """Return the gradients of a norm's scale and shift, as views of its sums."""
    return [] if sums is None else [sums[1], sums[0]]


def _typed(dweights: list[Tensor], tape: Sequence[_Taped]) -> list[Tensor]:
    """Convert the gradients of norms to the type of their weights.

    All at once: on a GPU each conversion would be a launch.
    """
    weights = [weight for each in tape for weight in each.weights]
    places = [i for i, each in enumerate(dweights) if each.dtype != weights[i].dtype]
    if places:
        converted = [torch.empty_like(weights[i]) for i in places]
        torch._foreach_copy_(converted, [dweights[i] for i in places])
        for i, each in zip(places, converted, strict=True):
            dweights[i] = each
    return dweights


def _gate_gradients(sums: Tensor, norms: Sequence[Norm | None]) -> Tensor:
    """Return the gradient of each gate: that of ``gate * (scale * zhat + shift)``."""
    one = sums.new_ones(sums.shape[2])
    zero = torch.zeros_like(one)
    scale = torch.stack([one if norm is None else norm.scale.to(one) for norm in norms])
    shift = torch.stack([zero if norm is None else norm.shift.to(one) for norm in norms])
    # Nobody else needs sums[:, 0] of a branch without a norm, and it is finite: times 0 it is 0.
    return (scale * sums[:, 1] + shift * sums[:, 0]).sum(1)


def _chosen(gates: Tensor, chosen: Sequence[int]) -> Tensor:
    # Stacked, not indexed by a list: that would copy an index to the device, and wait for it.
    return gates if len(chosen) == gates.numel() else torch.stack([gates[i] for i in chosen])


def output_shape(
    plan: Plan, inputs: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[int, int, int, int]:
    """Return `[N, D, P, Q]` of the plan's result."""
    branch = plan.branches[0]
    x = inputs[branch.inputs[0]]
    channels = x.shape[1]
    if branch.kind == "separable":
        channels = weights[1].shape[0]
    elif branch.kind == "conv":
        channels = weights[0].shape[0]
    elif branch.kind == "reduction":
        channels = weights[0].shape[0] + weights[1].shape[0]
    return (x.shape[0], channels, *branch.size(x.shape[2], x.shape[3]))


def _zeros(
    backend: Backend, plan: Plan, inputs: Sequence[Tensor], weights: Sequence[Tensor]
) -> Tensor:
    _, channels, height, width = output_shape(plan, inputs, weights)
    return backend.empty(inputs[0], channels, height, width).zero_()
