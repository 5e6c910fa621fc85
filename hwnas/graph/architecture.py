"""An architecture: the record of a space's picks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from hwnas.errors import UserInputError

if TYPE_CHECKING:
    from hwnas.graph.pick import Decision

Answer: TypeAlias = "str | int | float | bool | tuple[int, ...]"
JsonAnswer: TypeAlias = "str | int | float | bool | list[int]"


class Architecture(Mapping[str, Answer]):
    """An immutable, ordered mapping from the name of each pick to its answer.

    Args:
        answers: The answers, in the order in which they were asked.
    """

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = dict(answers)

    def __getitem__(self, name: str) -> Answer:
        """Return the answer to the pick called `name`."""
        return self._answers[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in order."""
        return iter(self._answers)

    def __len__(self) -> int:
        """Return the number of picks."""
        return len(self._answers)

    def __hash__(self) -> int:
        """Hash names and answers."""
        return hash(tuple(self._answers.items()))

    def __eq__(self, other: object) -> bool:
        """Compare names, answers and their order."""
        if not isinstance(other, Architecture):
            return NotImplemented
        return list(self._answers.items()) == list(other._answers.items())

    def __repr__(self) -> str:
        """Show the id and the answers."""
        return f"Architecture({self.id}, {self._answers!r})"

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits that name this architecture."""
        text = json.dumps(self.to_json(), separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, JsonAnswer]:
        """Return a JSON object; subsets become lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in self._answers.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, JsonAnswer]) -> Architecture:
        """Read what `to_json` wrote.

        Raises:
            UserInputError: The value is not a mapping of names to answers.
        """
        if not isinstance(value, Mapping):
            raise UserInputError(f"an architecture is a JSON object, not {type(value).__name__}")
        for name, answer in value.items():
            is_subset = isinstance(answer, list) and all(type(each) is int for each in answer)
            if not is_subset and not isinstance(answer, (str, int, float)):
                raise UserInputError(f"architecture: {name}: {answer!r} cannot be an answer")
        return cls({k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})

    def replay(self) -> Callable[[Decision], Answer]:
        """Return a function that answers each decision as recorded here.

        Raises (when called):
            UserInputError: The space asks for a pick that was not recorded.
        """

        def answer(decision: Decision) -> Answer:
            try:
                return self._answers[decision.name]
            except KeyError:
                raise UserInputError(
                    f"architecture {self.id} has no answer for {decision.name!r}",
                    "it belongs to another space or to other settings of this one",
                ) from None

        return answer
