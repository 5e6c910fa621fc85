"""Search spaces: functions that pick. One file a space."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from hwnas.errors import UserInputError
from hwnas.graph import Answer, Architecture, Decision, Graph, Pick, Shape
from hwnas.registry import PluginConfig, Registry

_SAMPLES_TO_COMPARE = 8
#: An expanded graph of enas_micro takes about 0.5 MB; building it anew, about 10 ms.
_GRAPHS_KEPT = 256


@dataclass(frozen=True, slots=True)
class Stated:
    """A figure as its source states it.

    Attributes:
        value: The figure.
        within: Half a unit of its last digit; 0 for an exact one.
    """

    value: float
    within: float = 0.0

    def holds(self, value: float) -> bool:
        """Tell whether a value rounds to the figure."""
        return abs(value - self.value) <= self.within


@dataclass(frozen=True, slots=True)
class Published:
    """A network that was published, as an architecture of a space.

    Attributes:
        architecture: Its picks.
        settings: Settings of the space.
        input_shape: (C, H, W) of the images, or (T,) tokens.
        classes: Number of classes, or of words.
        source: Where the architecture and the figures are from.
        params: Number of parameters.
        macs: Multiply-accumulates for one input.
        difference: Why our count differs from a figure, where it does.
    """

    architecture: Architecture
    settings: Mapping[str, Any]
    input_shape: Shape
    classes: int
    source: str
    params: Stated | None = None
    macs: Stated | None = None
    difference: str = ""


class SearchSpace(ABC):
    """A set of architectures, given by the one function that builds any of them.

    Args:
        config: The space's settings.
        input_shape: (C, H, W) of the images.
        classes: Number of classes.

    Attributes:
        given: The only architecture that is left to sample; None for all of them.
        task: What its networks learn: ``classification`` of images, ``language_model`` of text;
            None for whatever the data is.

    Raises:
        UserInputError: The input is text and the space is for images, or the other way round.
    """

    Config: ClassVar[type[PluginConfig]] = PluginConfig
    task: ClassVar[str | None] = "classification"

    def __init__(self, config: PluginConfig, input_shape: Shape, classes: int) -> None:
        is_text = len(input_shape) == 1
        if self.task is not None and is_text != (self.task == "language_model"):
            texts = "data.name: shakespeare, wikitext2 or penn_treebank"
            raise UserInputError(
                f"the space {type(self).__name__} is for {'images' if is_text else 'text'}, not "
                f"for inputs of shape {input_shape}",
                f"use {'a data set of images, such as data.name: digits' if is_text else texts}",
            )
        self.config = config
        self.input_shape = input_shape
        self.classes = classes
        self.given: Architecture | None = None
        self.graph = lru_cache(maxsize=_GRAPHS_KEPT)(self._graph)

    @classmethod
    def published(cls) -> Mapping[str, Published]:
        """Return the published networks of this space by name."""
        return {}

    @classmethod
    def cell_outputs(cls, config: PluginConfig) -> Mapping[str, tuple[int, ...]]:
        """Return by cell the states that make its output, for drawings.

        A cell that is not among them gives out the states that none of its nodes reads.

        Args:
            config: The space's settings.
        """
        del config  # a space of which nothing is said
        return {}

    def scheduled(self, samples: int) -> Mapping[str, Answer]:
        """Return the decisions that are answered, not asked, after so many samples of a search.

        A strategy does not propose these answers and is not taught by them. All of them are
        answers of `build`, whose architectures do not depend on when they were sampled.

        Args:
            samples: Architectures that were sampled before.
        """
        del samples  # a space that stays the same
        return {}

    def parse(self, text: str) -> Architecture:
        """Read an architecture in the form that the space's own tools print; nothing is executed.

        Raises:
            UserInputError: The space has no such form, or the text is not in it, or it is of other
                settings of the space.
        """
        raise UserInputError(
            f"architecture: {text[:60]!r} is no file, and {type(self).__name__} has no text form",
            "give the picks, a JSON file with them, or published:NAME",
        )

    def format(self, architecture: Architecture) -> str | None:
        """Return the text that `parse` reads; None where the space has no such form.

        Raises:
            UserInputError: The architecture is of another space.
        """
        del architecture  # a space without a text form
        return None

    @abstractmethod
    def build(self, pick: Pick) -> Graph:
        """Build the network that the picks describe."""

    def realise(self, answer: Callable[[Decision], Answer]) -> tuple[Architecture, Graph]:
        """Return the architecture that `answer` describes, and its graph."""
        pick = Pick(answer)
        graph = self.build(pick)
        return pick.architecture, graph

    def _graph(self, architecture: Architecture) -> Graph:
        """Return the graph of a recorded architecture.

        Raises:
            UserInputError: The architecture is of another space.
        """
        pick = Pick(architecture.replay())
        graph = self.build(pick)
        unused = [name for name in architecture if name not in pick.architecture]
        if unused:
            raise UserInputError(
                f"architecture {architecture.id} answers {unused[0]!r}, which is never asked",
                "it belongs to another space or to other settings of this one",
            )
        return graph

    def decisions_of(self, answer: Callable[[Decision], Answer]) -> tuple[Decision, ...]:
        """Return the decisions that come up when they are answered by `answer`."""
        pick = Pick(answer)
        self.build(pick)
        return pick.decisions

    def decisions(self) -> tuple[Decision, ...]:
        """Return the decisions of a space that always asks the same ones.

        Whether it does is judged by the first, the last and a few random architectures. A space
        that asks otherwise in rare cases only must override this.

        Raises:
            UserInputError: The list depends on the answers.
        """
        first = self.decisions_of(lambda decision: decision.decode(0))
        others = [self.decisions_of(lambda decision: decision.decode(decision.count - 1))]
        for seed in range(_SAMPLES_TO_COMPARE):  # a space may branch on an option in the middle
            others.append(self.decisions_of(self.sample(random.Random(seed)).replay()))
        if any(decisions != first for decisions in others):
            raise UserInputError(
                f"{type(self).__name__} has no fixed list of decisions: later ones depend on "
                "earlier answers",
                "use a strategy that works with conditional decisions, such as random or enas",
            )
        return first

    def size(self) -> int:
        """Return the number of architectures, counted as sequences of answers."""
        return math.prod(decision.count for decision in self.decisions())

    def sample(self, rng: random.Random) -> Architecture:
        """Return an architecture, each decision answered uniformly at random."""
        if self.given is not None:
            return self.given
        return self.realise(lambda decision: decision.decode(rng.randrange(decision.count)))[0]

    def neighbour(self, architecture: Architecture, rng: random.Random) -> Architecture:
        """Return a copy with one decision answered differently.

        Decisions that come up only because of the change, or offer other options because of it, are
        answered at random.
        """
        decisions = [d for d in self.decisions_of(architecture.replay()) if d.count > 1]
        if not decisions:
            return architecture
        changed = rng.choice(decisions)

        def answer(decision: Decision) -> Answer:
            if decision.name in architecture:
                known = architecture[decision.name]
                if decision.name != changed.name and _fits(decision, known):
                    return known
                if decision.name != changed.name:
                    return decision.decode(rng.randrange(decision.count))
                others = [i for i in range(decision.count) if i != decision.encode(known)]
                return decision.decode(rng.choice(others))
            return decision.decode(rng.randrange(decision.count))

        return self.realise(answer)[0]


def _fits(decision: Decision, answer: Answer) -> bool:
    try:
        decision.check(answer)
    except UserInputError:
        return False
    return True


SPACES: Registry[SearchSpace] = Registry("space", "hwnas.spaces")
