"""A plan: the branches that a fused op sums, in a form that is hashable and travels as text."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from hwnas.errors import ShapeError
from hwnas.kernels.backend import Window

#: What a branch does. `identity` passes its input on.
BranchKind = Literal["separable", "conv", "reduction", "max_pool", "avg_pool", "identity"]


@dataclass(frozen=True, slots=True)
class Branch:
    """One summand: up to `stages` stages, each followed by a batch norm if `has_norm`.

    Weights come in this order, for each stage: `separable` depthwise, pointwise; `conv` weight;
    `reduction` even, odd; then, with a norm, its scale and its shift.

    Attributes:
        kind: What the branch does.
        inputs: Which of the op's inputs it reads; several for a 1×1 `conv` of a concatenation.
        kernel: Height and width of the window.
        stride: Step of the first stage.
        dilation: Distance between taps.
        stages: How often a `separable` is applied.
        relu_before: Whether a ReLU comes first (always for `separable`).
        relu_after: Whether a ReLU follows the norm.
        has_norm: Whether a batch norm follows each stage.
        epsilon: Of the norms.
    """

    kind: BranchKind
    inputs: tuple[int, ...] = (0,)
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    stages: int = 1
    relu_before: bool = False
    relu_after: bool = False
    has_norm: bool = True
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse what no stage does."""
        if not self.has_norm and (self.relu_after or self.stages > 1):
            raise ShapeError(f"{self.kind}: stages and a ReLU behind them need a norm")

    @property
    def weights_per_stage(self) -> int:
        """Number of weights of one stage, norm included."""
        own = {"separable": 2, "conv": 1, "reduction": 2}.get(self.kind, 0)
        return own + 2 * self.has_norm

    @property
    def weight_count(self) -> int:
        """Number of weights of the branch."""
        return self.stages * self.weights_per_stage

    @property
    def norm_count(self) -> int:
        """Number of norms of the branch."""
        return self.stages if self.has_norm else 0

    @property
    def is_plain(self) -> bool:
        """Whether the branch's value is its input."""
        return self.kind == "identity" and not self.has_norm

    def window(self, stage: int = 0) -> Window:
        """Return the window of a stage; only the first has a stride."""
        return Window(self.kernel, self.stride if stage == 0 else 1, self.dilation)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the output's height and width for an input's."""
        if self.kind == "identity":
            return height, width
        if self.kind == "reduction":
            return (height + 1) // 2, (width + 1) // 2
        window = self.window()
        return window.size(height), window.size(width)


@dataclass(frozen=True)
class Plan:
    """The branches of one fused op; every active one gives the same shape.

    Attributes:
        branches: The summands.
    """

    branches: tuple[Branch, ...]

    def __post_init__(self) -> None:
        """Refuse what `combine` does not do."""
        if len(self.branches) > 1 and any(branch.relu_after for branch in self.branches):
            raise ShapeError("a sum of several branches rectifies none of them")

    @functools.cached_property
    def text(self) -> str:
        """The plan as JSON: what a `torch.library` schema can carry."""
        return json.dumps([asdict(branch) for branch in self.branches], separators=(",", ":"))

    @staticmethod
    def parse(text: str) -> Plan:
        """Return the plan that `text` came from."""
        return _parse(text)

    @functools.cached_property
    def weight_slices(self) -> Sequence[slice]:
        """Where each branch's weights lie in the flat list of all."""
        return _slices([branch.weight_count for branch in self.branches])

    @functools.cached_property
    def norm_slices(self) -> Sequence[slice]:
        """Where each branch's statistics lie in the flat list of all."""
        return _slices([branch.norm_count for branch in self.branches])


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> Plan:
    return Plan(
        tuple(Branch(**{**each, "inputs": tuple(each["inputs"])}) for each in json.loads(text))
    )


def _slices(counts: Sequence[int]) -> list[slice]:
    found, start = [], 0
    for count in counts:
        found.append(slice(start, start + count))
        start += count
    return found
