"""Branches that are summed, with or without gates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError
from hwnas.graph.op import (
    Composite,
    OnnxNodeWriter,
    Op,
    Primitive,
    RunMode,
    Shape,
    WeightSpec,
    register,
)

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.graph.builder import GraphBuilder, Value
    from hwnas.kernels.form import Form
    from hwnas.kernels.plan import Branch


@dataclass(frozen=True, slots=True)
class Candidate:
    """One branch of a mixed op.

    Attributes:
        op: What it applies; None passes the input on.
        input: Which of the mixed op's inputs it reads.
        weights: Name of its weights within the mixed op's.
    """

    op: Op | None = None
    input: int = 0
    weights: str = ""


@register("gated_sum")
@dataclass(frozen=True)
class GatedSum(Primitive):
    """The sum of tensors of one shape, each times its gate; `weight` is `[B]`."""

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the inputs' shape.

        Raises:
            ShapeError: The inputs are not of one shape.
        """
        if len(set(inputs)) != 1:
            raise ShapeError(f"gated_sum expects inputs of one shape, got {inputs}")
        return inputs[0]

    def weights(self, inputs: Sequence[Shape]) -> Mapping[str, WeightSpec]:
        """Return `weight` `[B]`, one gate for each input."""
        return {"weight": WeightSpec((len(inputs),), "ones")}

    def forward(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], mode: RunMode
    ) -> Tensor:
        """Return the weighted sum."""
        import torch

        from hwnas.kernels.mixed_op import active_branches

        gates = weights["weight"]
        active = [i for i, is_active in enumerate(active_branches(gates)) if is_active]
        if not active:
            return torch.zeros_like(inputs[0])
        total = inputs[active[0]] * gates[active[0]]
        for index in active[1:]:
            total = total + inputs[index] * gates[index]
        return total

    def to_onnx(self, writer: OnnxNodeWriter, inputs: Sequence[str]) -> str:
        """Write a Mul for each input and a Sum."""
        gates = writer.array("weight")
        scaled = [
            writer.emit("Mul", [x, writer.constant(f"gate{index}", gates[index : index + 1])])
            for index, x in enumerate(inputs)
        ]
        return writer.emit("Sum", scaled)


@register("mixed_op")
@dataclass(frozen=True)
class MixedOp(Composite):
    """The sum of candidate branches, each times a gate where `gated`.

    One branch is a sampled path, two gated ones are ProxylessNAS' pair of paths (Cai et al. 2019,
    section 3.2), all of them gated are DARTS' mixture; two ungated ones that read different inputs
    are a node of an ENAS cell.

    Attributes:
        branches: The candidates; all must give one shape.
        gated: Whether the weight `gates/weight` `[B]`, which the strategy owns, scales the
            branches. On a CPU a gate of exactly zero switches its branch off, and its gradient is
            zero (`hwnas.kernels.mixed_op.active_branches`).
    """

    branches: tuple[Candidate, ...]
    gated: bool = False

    def expand(self, g: GraphBuilder, inputs: Sequence[Value]) -> Value:
        """Return the sum.

        Raises:
            ShapeError: There is no branch, or they differ in shape.
        """
        values = []
        for each in self.branches:
            x = inputs[each.input]
            values.append(x if each.op is None else g.add(each.op, [x], each.weights))
        if not values:
            raise ShapeError("mixed_op has no branches")
        if self.gated:
            return g.gated_sum(*values, weights="gates")
        total = values[0]
        for value in values[1:]:
            total = g.sum(total, value)
        return total

    def fused(self, inputs: int) -> Form | None:
        """Return all branches as one plan, if each of them has a fused form of one branch."""
        from hwnas.kernels.form import Form
        from hwnas.kernels.plan import Branch, Plan

        branches: list[Branch] = []
        weights: list[tuple[str, ...]] = []
        norms: list[str] = []
        for each in self.branches:
            if each.op is None:
                branches.append(Branch("identity", (each.input,), has_norm=False))
                continue
            form = each.op.fused(1)
            if form is None or form.gates is not None or len(form.plan.branches) != 1:
                return None
            (branch,) = form.plan.branches
            if branch.relu_after and len(self.branches) > 1:
                return None
            branches.append(dataclasses.replace(branch, inputs=(each.input,)))
            for names in form.weights:
                weights.append(tuple(f"{each.weights}/{name}" for name in names))
            norms += [f"{each.weights}/{name}" for name in form.norms]
        gates = "gates/weight" if self.gated else None
        return Form(Plan(tuple(branches)), tuple(weights), tuple(norms), gates)
