"""Strategies: who answers the picks. One file a strategy.

A run asks for the architecture of a trial id and tells the reward of that id later. Trials that
will be told have the ids 0, 1, 2, … without a gap; a trial that failed is told with the reward
``None``. Ids from `UNTOLD_IDS` on may be asked for at any time and are never told: the one-shot
loop trains the shared weights on such children.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random  # the module's name is taken by `hwnas.strategies.random`
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from hwnas.errors import HwnasError, UserInputError
from hwnas.graph.architecture import Answer, Architecture
from hwnas.graph.pick import Decision
from hwnas.registry import PluginConfig, Registry

if TYPE_CHECKING:
    import numpy as np

    from hwnas.spaces import SearchSpace

#: Ids from here on are asked for but never told.
UNTOLD_IDS = 2**40


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of one trial.

    Attributes:
        trial_id: The id that was asked for.
        architecture: The architecture that was tried.
        reward: Larger is better; None if the trial failed.
    """

    trial_id: int
    architecture: Architecture
    reward: float | None


class StrategyState(TypedDict):
    """Everything that a strategy has learned, in a form that is stored without pickle.

    Attributes:
        tensors: C-contiguous arrays by name, for a safetensors file.
        json: A JSON object.
    """

    tensors: dict[str, np.ndarray]
    json: dict[str, Any]


class Strategy(ABC):
    """Proposes architectures and learns from their rewards.

    A subclass writes `_propose`; one that learns also `_learn`, `_own_state` and
    `_load_own_state`. The contract, which `hwnas.testing.strategies.StrategySuite` checks, is kept
    here: `ask` is pure, and results may come in any order, in any grouping and more than once.
    They are kept back until the next `group_size` ids are complete, and then learned from in the
    order of their ids, so what is learned does not depend on who finished first.

    Args:
        config: The strategy's settings.
        space: Where architectures come from.
        seed: Together with the trial id and what was told, it determines every proposal.
    """

    Config: ClassVar[type[PluginConfig]] = PluginConfig

    def __init__(self, config: PluginConfig, space: SearchSpace, seed: int) -> None:
        self.config = config
        self.space = space
        self.seed = seed
        self._learned = 0  # all ids below were learned from
        self._waiting: dict[int, Scored] = {}

    @property
    def group_size(self) -> int:
        """The number of consecutive trials that are learned from at once."""
        return 1

    def ask(self, trial_ids: Sequence[int]) -> list[Architecture]:
        """Return an architecture for each trial id, and change nothing.

        The answer for an id depends on what was told, the seed and that id only.

        Args:
            trial_ids: Any ids from 0 on, in any order, also ones that were asked before.
        """
        return [self._propose(i, Random(f"{self.seed}/{i}")) for i in trial_ids]

    def tell(self, trials: Sequence[Scored]) -> None:
        """Take in results; a trial that was told before is ignored.

        Raises:
            HwnasError: A reward is not a finite number; nothing was taken in.
            ValueError: A trial id is not one of those that are told.
        """
        for trial in trials:
            if not 0 <= trial.trial_id < UNTOLD_IDS:
                raise ValueError(f"trial {trial.trial_id}: told ids are 0 … 2**40 - 1")
            if trial.reward is not None and not math.isfinite(trial.reward):
                raise HwnasError(
                    f"trial {trial.trial_id}: the reward is {trial.reward}, not a finite number",
                    "tell a failed trial with the reward None; look at its accuracy and latency",
                )
        for trial in trials:
            if trial.trial_id >= self._learned:
                self._waiting.setdefault(trial.trial_id, trial)
        while all(i in self._waiting for i in self._next_group()):
            self._learn([self._waiting[i] for i in self._next_group()])
            for i in self._next_group():
                del self._waiting[i]
            self._learned += self.group_size

    def best_guess(self) -> Architecture | None:
        """Return the most likely architecture; None if the strategy prefers none."""
        return None

    def diagnostics(self) -> dict[str, float]:
        """Return finite numbers that describe the state of learning."""
        return {}

    def state_dict(self) -> StrategyState:
        """Return all that was learned; see `StrategyState`."""
        own = self._own_state()
        waiting = [
            [i, trial.architecture.to_json(), trial.reward]
            for i, trial in sorted(self._waiting.items())
        ]
        return {
            "tensors": own["tensors"],
            "json": {
                "seed": self.seed,
                "learned": self._learned,
                "waiting": waiting,
                "own": own["json"],
            },
        }

    def load_state_dict(self, state: StrategyState) -> None:
        """Forget everything and continue from what `state_dict` returned.

        Raises:
            UserInputError: The state is of a strategy with another seed.
        """
        json = state["json"]
        if json["seed"] != self.seed:
            raise UserInputError(
                f"the stored strategy has the seed {json['seed']}, this run has {self.seed}",
                "resume a run with the configuration that it was started with",
            )
        self._learned = json["learned"]
        self._waiting = {
            i: Scored(i, Architecture.from_json(answers), reward)
            for i, answers, reward in json["waiting"]
        }
        self._load_own_state({"tensors": state["tensors"], "json": json["own"]})

    @abstractmethod
    def _propose(self, trial_id: int, rng: Random) -> Architecture:
        """Return the architecture of one trial; `rng` is seeded for it. Changes nothing."""

    def _learn(self, group: Sequence[Scored]) -> None:  # noqa: B027 (learning is optional)
        """Learn from the next `group_size` trials, which come in the order of their ids."""

    def _own_state(self) -> StrategyState:
        """Return what the subclass has learned."""
        return {"tensors": {}, "json": {}}

    def _load_own_state(self, state: StrategyState) -> None:  # noqa: B027 (as above)
        """Restore what `_own_state` returned."""

    def _realise(self, answer: Callable[[Decision], Answer], trial_id: int) -> Architecture:
        """Return the architecture that `answer` describes, without a graph if that is possible.

        What the space answers itself at this point of the search is not asked.
        """
        given = self._scheduled(trial_id)

        def asked(decision: Decision) -> Answer:
            return given[decision.name] if decision.name in given else answer(decision)

        if self._fixed is None:
            return self.space.realise(asked)[0]
        return Architecture({decision.name: asked(decision) for decision in self._fixed})

    def _decisions_of(self, architecture: Architecture, trial_id: int) -> tuple[Decision, ...]:
        """Return the decisions of an architecture that were asked for.

        Raises:
            UserInputError: The architecture is of another space.
        """
        answer, given = architecture.replay(), self._scheduled(trial_id)
        if self._fixed is None:
            decisions = self.space.decisions_of(answer)
        else:
            decisions = self._fixed
            for decision in decisions:
                decision.check(answer(decision))
        return tuple(each for each in decisions if each.name not in given) if given else decisions

    def _scheduled(self, trial_id: int) -> Mapping[str, Answer]:
        # Ids that are never told belong to the time of the newest that was.
        return self.space.scheduled(trial_id if trial_id < UNTOLD_IDS else self._learned)

    @cached_property
    def _fixed(self) -> tuple[Decision, ...] | None:
        """The space's decisions; None where later ones depend on earlier answers."""
        try:
            return self.space.decisions()
        except UserInputError:
            return None

    def _next_group(self) -> range:
        return range(self._learned, self._learned + self.group_size)


STRATEGIES: Registry[Strategy] = Registry("strategy", "hwnas.strategies")
