"""How many kernels an op launches on a GPU: Triton's, and those behind PyTorch's own operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hwnas.kernels import stages
from hwnas.kernels.backend import Norm, Upstream, Window
from hwnas.kernels.gradients import Gradients, Targets
from hwnas.kernels.plan import Branch, Plan

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.backend import Backend

#: Operators that only allocate.
_ALLOCATIONS = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"}


@dataclass(frozen=True, slots=True)
class Launches:
    """Launches of one pass.

    Attributes:
        triton: Of Triton kernels.
        torch: Of PyTorch's operators that compute or copy something, one each.
    """

    triton: int
    torch: int

    def __str__(self) -> str:
        return f"{self.triton} + {self.torch}" if self.torch else str(self.triton)

    @property
    def total(self) -> int:
        """All of them."""
        return self.triton + self.torch


@dataclass(frozen=True, slots=True)
class Count:
    """Launches of an op, with the limit on each pass or on both together.

    Attributes:
        op: What is counted.
        forward: Of the forward pass.
        backward: Of the backward pass.
        limit: Most launches of a pass; None for no limit.
        limit_both: Most launches of both passes together; None for no limit.
    """

    op: str
    forward: Launches
    backward: Launches
    limit: int | None = None
    limit_both: int | None = None

    @property
    def limit_text(self) -> str:
        """The limit in words, or an empty string."""
        if self.limit is not None:
            return f"{self.limit} each"
        return "" if self.limit_both is None else f"{self.limit_both} in all"

    @property
    def problems(self) -> list[str]:
        """The limits that are broken, one line each."""
        passes = {"forward": self.forward.total, "backward": self.backward.total}
        found = [
            f"{self.op}: {count} launches {name}, at most {self.limit}"
            for name, count in passes.items()
            if self.limit is not None and count > self.limit
        ]
        both = sum(passes.values())
        if self.limit_both is not None and both > self.limit_both:
            found.append(f"{self.op}: {both} launches, at most {self.limit_both}")
        return found


class _Operators(TorchDispatchMode):
    """Counts operators that are neither views nor allocations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returns = func._schema.returns
        is_view = any(each.alias_info and not each.alias_info.is_write for each in returns)
        if not is_view and func._schema.name.removeprefix("aten::") not in _ALLOCATIONS:
            self.count += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def _counting() -> Iterator[Callable[[], Launches]]:
    """Record launches; the function returned says how many there have been since it last did."""
    from hwnas.kernels.triton._spec import recording

    with recording() as found, _Operators() as operators:

        def since() -> Launches:
            launches = Launches(len(found), operators.count)
            found.clear()
            operators.count = 0
            return launches

        yield since


def counts() -> list[Count]:
    """Count the launches of the stages and ops that docs/kernels.md lists, on the meta device."""
    from hwnas.kernels.backends import backend_named

    backend = backend_named("triton")
    return [_separable(backend), *map(_plan, _ops(), [backend] * len(_ops()))]


def _image(channels: int = 16, side: int = 32) -> Tensor:
    x = torch.empty(64, channels, side, side, device="meta")
    return x.to(memory_format=torch.channels_last)


def _separable(backend: Backend) -> Count:
    x = _image()
    channels = x.shape[1]
    norm = Norm(x.new_empty(2, channels), x.new_empty(channels), x.new_empty(channels), 1e-5, True)
    rest = (norm, Window(3), x.new_empty(channels, 1, 3, 3), x.new_empty(channels, channels, 1, 1))
    with _counting() as since:
        z, _ = backend.separable(x, *rest, True)
        forward = since()
        up = Upstream(z, z, norm, x.new_empty(2, channels))
        backend.separable_backward(up, x, *rest, x, False)
        return Count("separable stage", forward, since(), limit=2)


def _ops() -> list[tuple[str, Plan, bool, int | None]]:
    """Name, branches, whether they have gates, and the limit on launches of both passes."""
    separable = [Branch("separable", kernel=kernel, stages=2) for kernel in (3, 5)]
    dilated = [Branch("separable", kernel=kernel, dilation=2) for kernel in (3, 5)]
    pools = [Branch(kind, kernel=3) for kind in ("max_pool", "avg_pool")]
    identity = Branch("identity", has_norm=False)
    everything = Plan((*separable, *dilated, *pools, identity))
    return [
        ("sep_conv 3×3, two stages", Plan((separable[0],)), False, None),
        ("pool_bn 3×3, maximum", Plan((pools[0],)), False, None),
        ("factorized_reduction", Plan((Branch("reduction", relu_before=True),)), False, None),
        ("mixed_op, 7 branches of DARTS", everything, True, 20),
    ]


def _plan(op: tuple[str, Plan, bool, int | None], backend: Backend) -> Count:
    name, plan, is_gated, limit = op
    x = _image()
    weights = [each for branch in plan.branches for each in _weights(x, branch)]
    gates = x.new_empty(len(plan.branches)) if is_gated else None
    active = [True] * len(plan.branches)
    with _counting() as since:
        y, saved = stages.forward(backend, plan, [x], weights, [], gates, active)
        forward = since()
        targets = Targets(Gradients(backend, [x], [True]), [0])
        stages.backward(backend, plan, y, [x], weights, [], gates, saved, active, targets)
        return Count(name, forward, since(), limit_both=limit)


def _weights(x: Tensor, branch: Branch) -> list[Tensor]:
    channels = x.shape[1]
    own: list[tuple[int, ...]] = []
    if branch.kind == "separable":
        window = (channels, 1, branch.kernel, branch.kernel)
        own = [window, (channels, channels, 1, 1)]
    elif branch.kind == "reduction":
        own = [(channels // 2, channels, 1, 1)] * 2
    norm: list[tuple[int, ...]] = [(channels,)] * 2 if branch.has_norm else []
    return [x.new_empty(shape) for _ in range(branch.stages) for shape in (*own, *norm)]
