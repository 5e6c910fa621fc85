"""The four picks: how a search space asks, and how a strategy answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from hwnas.errors import HwnasError, UserInputError
from hwnas.graph.architecture import Answer, Architecture

Kind = Literal["one_of", "integer", "predecessor", "predecessors"]
T = TypeVar("T", bound=Answer)


@dataclass(frozen=True, slots=True)
class Decision:
    """One question that a space asks.

    Attributes:
        name: Unique in the architecture; parts are separated by ``/``, outermost first, such as
            ``normal/node2/input1``.
        kind: Which of the four picks asked.
        options: What can be answered: the options of `one_of`, the values of `integer` in order,
            the earlier indices of `predecessor`. An answer to `predecessors` is a sorted tuple of
            some of them.
    """

    name: str
    kind: Kind
    options: tuple[Answer, ...]

    @property
    def count(self) -> int:
        """The number of possible answers."""
        return 2 ** len(self.options) if self.kind == "predecessors" else len(self.options)

    def encode(self, answer: Answer) -> int:
        """Return the index of an answer, in ``[0, count)``; a subset becomes its bit mask."""
        if self.kind == "predecessors":
            assert isinstance(answer, tuple)
            return sum(1 << index for index in answer)
        return self.options.index(answer)

    def decode(self, index: int) -> Answer:
        """Return the answer with the given index; the inverse of `encode`."""
        if self.kind == "predecessors":
            return tuple(i for i in range(len(self.options)) if index >> i & 1)
        return self.options[index]

    def check(self, answer: Answer) -> None:
        """Refuse an answer that was not offered.

        Raises:
            UserInputError: The answer is not one of the options.
        """
        if self.kind == "predecessors":
            is_valid = (
                isinstance(answer, tuple)
                and list(answer) == sorted(set(answer))
                and set(answer) <= set(self.options)
            )
        else:
            # `True == 1` in Python, but a bool never answers an integer question.
            is_valid = any(answer == each and type(answer) is type(each) for each in self.options)
        if not is_valid:
            what = "a sorted subset of" if self.kind == "predecessors" else "one of"
            raise UserInputError(
                f"{self.name}: {answer!r} is not {what} {list(self.options)!r}",
                "the architecture belongs to another space or to other settings of this one",
            )


class Pick:
    """Asks a strategy one decision after the other, and records the answers.

    Args:
        answer: Gives an answer for each decision.
    """

    def __init__(self, answer: Callable[[Decision], Answer]) -> None:
        self._answer = answer
        self._decisions: list[Decision] = []
        self._answers: dict[str, Answer] = {}

    def one_of(self, name: str, options: Sequence[T]) -> T:
        """Pick one option (categorical): ops, activations, kernel sizes."""
        return self._ask(Decision(name, "one_of", tuple(options)))  # type: ignore[return-value]

    def integer(self, name: str, low: int, high: int, step: int = 1) -> int:
        """Pick a whole number from `low` to `high` inclusive (ordinal): filters, depth."""
        return self._ask(  # type: ignore[return-value]
            Decision(name, "integer", tuple(range(low, high + 1, step)))
        )

    def predecessor(self, name: str, count: int) -> int:
        """Pick one index below `count`: which earlier node feeds this one."""
        return self._ask(  # type: ignore[return-value]
            Decision(name, "predecessor", tuple(range(count)))
        )

    def predecessors(self, name: str, count: int) -> tuple[int, ...]:
        """Pick a subset of the indices below `count`: skip connections."""
        return self._ask(  # type: ignore[return-value]
            Decision(name, "predecessors", tuple(range(count)))
        )

    @property
    def architecture(self) -> Architecture:
        """All answers so far."""
        return Architecture(self._answers)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """All decisions so far, in the order in which they were asked."""
        return tuple(self._decisions)

    def _ask(self, decision: Decision) -> Answer:
        if decision.name in self._answers:
            raise HwnasError(f"the space asks for {decision.name!r} twice", "name each pick once")
        if not decision.options and decision.kind != "predecessors":
            raise HwnasError(f"{decision.name}: no option to pick from")
        answer = self._answer(decision)
        decision.check(answer)
        self._decisions.append(decision)
        self._answers[decision.name] = answer
        return answer
