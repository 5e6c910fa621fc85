"""Gradients of the values that fused ops read, while a backward pass collects them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hwnas.kernels.backend import Upstream

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.kernels.backend import Backend


class Gradients:
    """One buffer for each value, made when it is first written and added to afterwards.

    Args:
        backend: Makes the buffers.
        values: The values, `[N, C, H, W]`.
        wanted: Whether each one's gradient is wanted.
        may_borrow: Whether a gradient that is passed on unchanged may be that very tensor.
    """

    def __init__(
        self,
        backend: Backend,
        values: Sequence[Tensor],
        wanted: Sequence[bool],
        *,
        may_borrow: bool = False,
    ) -> None:
        self._backend = backend
        self._values = values
        self._wanted = wanted
        self._may_borrow = may_borrow
        self._buffers: dict[int, Tensor] = {}
        self._borrowed: set[int] = set()  # places whose buffer is not ours to write

    def give(self, place: int, gradient: Tensor) -> None:
        """Let a value start with a gradient that belongs to somebody else."""
        self._buffers[place] = gradient
        self._borrowed.add(place)

    def take(self, place: int) -> tuple[Tensor | None, bool]:
        """Return a value's gradient, which is complete, and whether it is nobody else's."""
        is_own = place not in self._borrowed
        self._borrowed.discard(place)
        return self._buffers.pop(place, None), is_own

    def hand_over(self, gradient: Tensor) -> None:
        """Let the only value that borrowed a gradient have it: its first owner is done."""
        borrowers = [place for place in self._borrowed if self._buffers[place] is gradient]
        if len(borrowers) == 1:
            self._borrowed.discard(borrowers[0])

    def pass_on(self, place: int, gradient: Tensor) -> bool:
        """Let a value without a gradient borrow one; return whether nothing is left to do."""
        if not self._wanted[place]:
            return True
        if not self._may_borrow or place in self._buffers:
            return False
        self.give(place, gradient)
        return True

    def target(self, place: int) -> tuple[Tensor | None, bool]:
        """Return where to write a gradient (None if not wanted) and whether to add."""
        if not self._wanted[place]:
            return None, False
        buffer = self._buffers.get(place)
        if buffer is None:
            return self._make(place), False
        if place in self._borrowed:
            self._borrowed.discard(place)
            lent, buffer = buffer, self._make(place)
            self._backend.accumulate(Upstream(lent, None, None, None), buffer, False)
        return buffer, True

    def scratch(self, place: int) -> tuple[Tensor, bool]:
        """Return `target`, or a buffer that nobody reads where the gradient is not wanted."""
        buffer, accumulate = self.target(place)
        if buffer is None:
            x = self._values[place]
            return self._backend.empty(x, *x.shape[1:]), False
        return buffer, accumulate

    def results(self, count: int) -> list[Tensor | None]:
        """Return the gradients of the first values, where wanted: zeros if nothing read one."""
        for place in range(count):
            if self._wanted[place] and place not in self._buffers:
                self._make(place).zero_()
        return [self._buffers[place] if self._wanted[place] else None for place in range(count)]

    def _make(self, place: int) -> Tensor:
        x = self._values[place]
        buffer = self._backend.empty(x, *x.shape[1:])
        self._buffers[place] = buffer
        return buffer


class Targets:
    """The gradients of one op's inputs, among those of all values.

    Args:
        gradients: Of all values.
        places: Of the op's inputs.
    """

    def __init__(self, gradients: Gradients, places: Sequence[int]) -> None:
        self._gradients = gradients
        self._places = places

    def pass_on(self, index: int, gradient: Tensor) -> bool:
        """See `Gradients.pass_on`."""
        return self._gradients.pass_on(self._places[index], gradient)

    def target(self, index: int) -> tuple[Tensor | None, bool]:
        """See `Gradients.target`."""
        return self._gradients.target(self._places[index])

    def scratch(self, index: int) -> tuple[Tensor, bool]:
        """See `Gradients.scratch`."""
        return self._gradients.scratch(self._places[index])
