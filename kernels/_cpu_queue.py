"""Calls of `hwnas._core`, at once or held back to run one behind the other.

A kernel pushes what Python needs out of the caches, so preparing the next call after each takes
some 50 µs: as long as a small kernel. Calls that are held back are prepared together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

#: Held-back calls keep their tensors: more of them would need more memory.
_MOST_HELD = 24


class _Held(threading.local):
    depth: int = 0

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.tensors: list[Tensor] = []


_held = _Held()


def address(tensor: Tensor | None) -> int:
    """Return where a tensor's values lie, 0 for None; it lives until the calls have run."""
    if tensor is None:
        return 0
    if _held.depth:
        _held.tensors.append(tensor)
    return tensor.data_ptr()


def call(function: Callable[..., None], *operands: Any) -> None:
    """Call a function of `hwnas._core`; inside `Together`, by its end."""
    if not _held.depth:
        function(*operands)
        return
    _held.calls.append((function, operands))
    if len(_held.calls) >= _MOST_HELD:
        catch_up()


def catch_up() -> None:
    """Run what is held back."""
    calls, tensors = _held.calls, _held.tensors
    _held.calls, _held.tensors = [], []
    for function, operands in calls:
        function(*operands)
    del tensors  # not before


class Together:
    """A ``with`` block in which calls are held back; after an error they are dropped."""

    def __enter__(self) -> None:
        """Start to hold back."""
        _held.depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Run what is held back."""
        _held.depth -= 1
        if kind is not None:
            _held.calls, _held.tensors = [], []
        elif not _held.depth:
            catch_up()
