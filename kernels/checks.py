"""Checks of operands: kernels get addresses, so a wrong shape would read what is not theirs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError, UserInputError
from hwnas.kernels.plan import Branch, Plan

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.backend import Backend

Shape = tuple[int, ...]


def check(
    plan: Plan,
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    statistics: Sequence[Tensor],
    gates: Tensor | None,
    active: Sequence[bool],
) -> Shape:
    """Return the shape of a plan's result.

    Raises:
        ShapeError: An operand's shape, dtype or device does not fit; the message names it.
    """
    first = inputs[0]
    for name, group in (("input", inputs), ("weight", weights)):
        for place, each in enumerate(group):
            if each.dtype != first.dtype or each.device != first.device:
                raise ShapeError(
                    f"mixed_op: {name} {place} is {each.dtype} on {each.device}, input 0 is "
                    f"{first.dtype} on {first.device}"
                )
    count = len(plan.branches)
    if (gates is not None and tuple(gates.shape) != (count,)) or len(active) != count:
        raise ShapeError(f"mixed_op: {count} branches need as many gates and marks of activity")
    shapes = [tuple(tuple(each.shape) for each in group) for group in (inputs, weights, statistics)]
    return _check_shapes(plan.text, *shapes)


def taken(backend: Backend, plan: Plan, x: Tensor) -> Backend:
    """Return the backend if it takes a plan and tensors like `x`.

    Raises:
        UserInputError: It does not.
    """
    if not (backend.offers(plan) and (backend.accepts(x.device, x.dtype) or x.is_meta)):
        kinds = ", ".join(f"{each.kind} {each.kernel}x{each.kernel}" for each in plan.branches)
        raise UserInputError(
            f"the kernel backend {backend.name!r} does not take {kinds} in {x.dtype} on {x.device}",
            "leave the choice to hwnas: hwnas.kernels.chosen(device, dtype)",
        )
    return backend


@functools.lru_cache(maxsize=8192)
def _check_shapes(
    text: str,
    inputs: tuple[Shape, ...],
    weights: tuple[Shape, ...],
    statistics: tuple[Shape, ...],
) -> Shape:
    plan = Plan.parse(text)
    _require(all(len(shape) == 4 for shape in inputs), f"inputs are [N, C, H, W], got {inputs}")
    expected = sum(branch.weight_count for branch in plan.branches)
    _require(len(weights) == expected, f"the plan has {expected} weights, got {len(weights)}")
    norms = sum(branch.norm_count for branch in plan.branches)
    given = len(statistics)
    _require(given in {0, norms}, f"the plan has {norms} norms, got {given} statistics")
    results = set()
    places = zip(plan.branches, plan.weight_slices, plan.norm_slices, strict=True)
    for branch, at_weights, at_norms in places:
        _require(
            all(0 <= i < len(inputs) for i in branch.inputs),
            f"{branch.kind} reads inputs {branch.inputs} of {len(inputs)}",
        )
        xs = [inputs[i] for i in branch.inputs]
        results.add(_check_branch(branch, xs, weights[at_weights], statistics[at_norms]))
    _require(len(results) == 1, f"branches give different shapes: {sorted(results)}")
    return results.pop()


def _check_branch(
    branch: Branch, xs: Sequence[Shape], weights: Sequence[Shape], statistics: Sequence[Shape]
) -> Shape:
    n, channels, height, width = xs[0]
    _require(
        all((x[0], *x[2:]) == (n, height, width) for x in xs),
        f"{branch.kind} reads images of one size, got {list(xs)}",
    )
    _require(len(xs) == 1 or branch.kind == "conv", f"{branch.kind} reads one input, got {len(xs)}")
    _require(
        branch.kind != "identity" or not branch.has_norm or len(statistics) > 0,
        "the norm of an identity has no statistics of its own: give running ones",
    )
    k = branch.kernel
    for stage in range(branch.stages):
        own = weights[stage * branch.weights_per_stage :][: branch.weights_per_stage]
        if branch.kind == "separable":
            _expect(branch, "depthwise", own[0], (channels, 1, k, k))
            _expect(branch, "pointwise", own[1], (weights[1][0], channels, 1, 1))
            channels = own[1][0]
        elif branch.kind == "conv":
            _require(len(xs) == 1 or k == 1, "a conv of several inputs has a 1x1 kernel")
            _expect(branch, "weight", own[0], (own[0][0], sum(x[1] for x in xs), k, k))
            channels = own[0][0]
        elif branch.kind == "reduction":
            for name, shape in zip(("even", "odd"), own, strict=False):
                _expect(branch, name, shape, (own[0][0], channels, 1, 1))
            channels = 2 * own[0][0]
        if branch.has_norm:
            _expect(branch, "scale", own[-2], (channels,))
            _expect(branch, "shift", own[-1], (channels,))
            if statistics:
                _expect(branch, "statistics", statistics[stage], (2, channels))
    height, width = branch.size(height, width)
    _require(min(height, width) > 0, f"{branch.kind} would shrink {xs[0]} to nothing")
    return (n, channels, height, width)


def _expect(branch: Branch, name: str, found: Shape, expected: Shape) -> None:
    _require(found == expected, f"{branch.kind}: {name} is {expected}, got {found}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ShapeError(f"mixed_op: {message}")
