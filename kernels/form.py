"""How fused stages run an op of a graph: its plan, and which of its weights the plan reads."""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.kernels.plan import Plan


@dataclass(frozen=True, slots=True)
class Form:
    """The fused form of an op.

    Attributes:
        plan: What is run.
        weights: Local names of the op's weights in the plan's order. Several names stand for one
            weight that is concatenated from them along its second dimension.
        norms: Local name of each norm in the plan's order; its weights are ``<norm>/mean`` and
            ``<norm>/variance``.
        gates: Local name of the gates, if the plan is gated.
    """

    plan: Plan
    weights: tuple[tuple[str, ...], ...]
    norms: tuple[str, ...] = ()
    gates: str | None = None
