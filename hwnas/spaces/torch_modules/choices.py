"""What a user's module calls in its constructor: `choice`, `integer` and `one_of`.

They return plain modules, numbers and values: the constructor runs anew for every architecture, so
any Python may compute with what was picked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, overload

from hwnas.errors import UserInputError
from hwnas.graph.architecture import Answer, Architecture
from hwnas.graph.pick import Pick

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")
A = TypeVar("A", bound=Answer)

#: Under this name a module remembers which options it was.
OPTIONS = "_hwnas_options"

_PICK: ContextVar[Pick | None] = ContextVar("hwnas_pick", default=None)


@contextmanager
def answering(pick: Pick) -> Iterator[None]:
    """Let `choice`, `integer` and `one_of` ask `pick` inside the block."""
    token = _PICK.set(pick)
    try:
        yield
    finally:
        _PICK.reset(token)


@contextmanager
def chosen(architecture: Architecture | Mapping[str, Any]) -> Iterator[None]:
    """Make modules inside the block with the choices of an architecture.

    Args:
        architecture: The answers, as a search recorded them.
    """
    with answering(Pick(Architecture(dict(architecture)).replay())):
        yield


def integer(name: str, low: int, high: int, step: int = 1) -> int:
    """Pick a whole number: a width, a depth, a kernel size.

    Args:
        name: Unique in the model; parts are separated by ``/``.
        low: Smallest number.
        high: Largest number, inclusive.
        step: Distance between two.

    Returns:
        The number, an ordinary int.
    """
    return _asked(name).integer(name, low, high, step)


@overload
def one_of(name: str, options: Mapping[str, T]) -> T: ...
@overload
def one_of(name: str, options: Sequence[A]) -> A: ...
def one_of(name: str, options: Mapping[str, Any] | Sequence[Any]) -> Any:
    """Pick one value.

    Args:
        name: Unique in the model.
        options: Numbers, texts or booleans; or a mapping of labels to values of any kind.

    Returns:
        The value.
    """
    pick = _asked(name)
    if isinstance(options, Mapping):
        return options[pick.one_of(name, tuple(options))]
    wrong = [each for each in options if not isinstance(each, (str, int, float, bool))]
    if wrong:
        raise UserInputError(
            f"one_of({name!r}): {wrong[0]!r} is not a number, a text or a boolean",
            "give a mapping of labels to values: {'relu': nn.ReLU, …}",
        )
    return pick.one_of(name, tuple(options))


def choice(name: str, options: Mapping[str, nn.Module | Callable[[], nn.Module]]) -> nn.Module:
    """Pick one module.

    Args:
        name: Unique in the model.
        options: Labels and what makes the module: a class or function without arguments, of which
            only the picked one is called; or modules. Options that are to share no weights need
            nothing else: the label is part of the weights' names.

    Returns:
        The module itself.
    """
    from torch import nn

    given: object = options  # the types are only as good as the user's own
    if not isinstance(given, Mapping) or not given:
        raise UserInputError(
            f"choice({name!r}): the options are a mapping of labels to modules",
            "such as {'conv3': lambda: nn.Conv2d(8, 8, 3), 'none': nn.Identity}",
        )
    label = _asked(name).one_of(name, tuple(options))
    option = options[label]
    module = option if isinstance(option, nn.Module) else option()
    if not isinstance(module, nn.Module):
        raise UserInputError(
            f"choice({name!r}): option {label!r} gave {type(module).__name__}, not a Module",
            "for other values use hwnas.one_of",
        )
    setattr(module, OPTIONS, (label, *getattr(module, OPTIONS, ())))
    return module


def _asked(name: str) -> Pick:
    pick = _PICK.get()
    if pick is None:
        raise UserInputError(
            f"{name!r} is picked outside of a search",
            "call hwnas.choice, integer and one_of in __init__ of the model, not in forward; to "
            "make one yourself: with hwnas.chosen({'NAME': ANSWER, …}): MyNet()",
        )
    return pick
