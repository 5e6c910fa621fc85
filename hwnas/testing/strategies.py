"""Conformance suite for strategies: inherit it, supply `make`, and the contract is tested.

```python
from hwnas.testing.strategies import StrategySuite


class TestMine(StrategySuite):
    make = staticmethod(lambda space, seed: Mine(Mine.Config(population=8), space, seed))
```
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from hwnas.errors import HwnasError
from hwnas.graph import Architecture, Graph, GraphBuilder, Pick
from hwnas.registry import PluginConfig
from hwnas.spaces import SearchSpace
from hwnas.strategies import UNTOLD_IDS, Scored, Strategy, StrategyState

OPS = ("conv", "pool", "identity")


class ToySpace(SearchSpace):
    """A space whose picks matter and whose graph does not."""

    def __init__(self) -> None:
        super().__init__(PluginConfig(), input_shape=(1, 4, 4), classes=2)
        self._tiny: Graph | None = None

    def build(self, pick: Pick) -> Graph:
        """Ask the picks, and return the same small network for all answers."""
        self.picks(pick)
        if self._tiny is None:
            g = GraphBuilder(self.input_shape)
            self._tiny = g.finish(g.classifier(g.input, classes=self.classes, weights="head"))
        return self._tiny

    def picks(self, pick: Pick) -> None:
        """Ask all picks."""
        raise NotImplementedError


class ToyCells(ToySpace):
    """Two cells of three nodes: `predecessor` twice and `one_of` twice a node, as in ENAS micro."""

    def picks(self, pick: Pick) -> None:
        """Ask 24 picks."""
        for cell in ("normal", "reduction"):
            for i in range(3):
                for side in ("1", "2"):
                    pick.predecessor(f"{cell}/node{i}/input{side}", i + 2)
                for side in ("1", "2"):
                    pick.one_of(f"{cell}/node{i}/op{side}", OPS)


class ToySkips(ToySpace):
    """A chain of four layers with an op and skip connections, as in ENAS macro, and a width."""

    def picks(self, pick: Pick) -> None:
        """Ask 9 picks."""
        pick.integer("width", 8, 32, step=8)
        for i in range(4):
            pick.one_of(f"layer{i}/op", OPS)
            pick.predecessors(f"layer{i}/skips", i)


class ToyConditional(ToySpace):
    """A chain whose depth is picked first: the number of picks depends on an answer."""

    def picks(self, pick: Pick) -> None:
        """Ask 3 to 9 picks."""
        for i in range(pick.integer("depth", 1, 4)):
            op = pick.one_of(f"layer{i}/op", OPS)
            if op == "conv":
                pick.one_of(f"layer{i}/kernel", (1, 3, 5))


TOY_SPACES: dict[str, type[ToySpace]] = {
    "cells": ToyCells,
    "skips": ToySkips,
    "conditional": ToyConditional,
}


def toy_reward(architecture: Architecture) -> float:
    """Return the share of answers that are a certain one, in [0, 1]: smooth and easy to improve."""
    wanted = {"conv", 8, 4, 3, 0}
    hits = [a in wanted if not isinstance(a, tuple) else len(a) == 1 for a in architecture.values()]
    return sum(hits) / len(hits)


def play(
    strategy: Strategy,
    trials: int,
    *,
    reward: Callable[[Architecture], float] = toy_reward,
    first: int = 0,
    batch: int = 5,
) -> list[Scored]:
    """Ask and tell in turns, `batch` trials at a time; return all trials."""
    played: list[Scored] = []
    for start in range(first, first + trials, batch):
        ids = range(start, min(start + batch, first + trials))
        turn = [Scored(i, a, reward(a)) for i, a in zip(ids, strategy.ask(ids), strict=True)]
        strategy.tell(turn)
        played += turn
    return played


def states_equal(a: StrategyState, b: StrategyState) -> bool:
    """Return whether two states are the same to the last bit."""
    return (
        a["json"] == b["json"]
        and a["tensors"].keys() == b["tensors"].keys()
        and all(
            x.dtype == b["tensors"][k].dtype and np.array_equal(x, b["tensors"][k])
            for k, x in a["tensors"].items()
        )
    )


def through_files(state: StrategyState) -> StrategyState:
    """Return a state as it comes back from a JSON and a tensor file."""
    tensors = {
        name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
        for name, array in state["tensors"].items()
    }
    return {"tensors": tensors, "json": json.loads(json.dumps(state["json"], allow_nan=False))}


class StrategySuite:
    """What every strategy must do.

    Attributes:
        spaces: Names of `TOY_SPACES` that the strategy can search; leave out ``conditional`` if it
            needs a fixed list of decisions.
        trials: How many trials are played where learning matters; a few rounds of the strategy.
    """

    spaces: ClassVar[Sequence[str]] = tuple(TOY_SPACES)
    trials: ClassVar[int] = 35

    @staticmethod
    def make(space: SearchSpace, seed: int) -> Strategy:
        """Build the strategy; a subclass assigns ``staticmethod(...)``."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test that takes a space on each of `spaces`."""
        if "space_name" in metafunc.fixturenames:
            metafunc.parametrize("space_name", list(self.spaces))

    @pytest.fixture
    def space(self, space_name: str) -> SearchSpace:
        """A toy space that the strategy can search."""
        return TOY_SPACES[space_name]()

    def test_proposals_belong_to_the_space(self, space: SearchSpace) -> None:
        """The space builds a graph from every proposal."""
        strategy = self.make(space, 0)
        play(strategy, self.trials)
        for architecture in strategy.ask(range(self.trials, self.trials + 20)):
            space.graph(architecture)

    def test_asking_changes_nothing(self, space: SearchSpace) -> None:
        """`ask`, `best_guess` and `diagnostics` leave the state as it is."""
        strategy = self.make(space, 0)
        play(strategy, self.trials)
        before = strategy.state_dict()
        first = strategy.ask([3, 40, UNTOLD_IDS + 7])
        strategy.best_guess()
        strategy.diagnostics()
        assert states_equal(before, strategy.state_dict())
        assert strategy.ask([3, 40, UNTOLD_IDS + 7]) == first

    def test_a_proposal_depends_on_its_own_id_only(self, space: SearchSpace) -> None:
        """Not on the ids before it or asked with it."""
        strategy = self.make(space, 0)
        play(strategy, self.trials)
        ids = [50, 51, 52, UNTOLD_IDS, 60]
        together = dict(zip(ids, strategy.ask(ids), strict=True))
        for i in reversed(ids):
            assert strategy.ask([i]) == [together[i]]

    def test_ids_and_seeds_give_different_proposals(self, space: SearchSpace) -> None:
        """A seed and an id each make a difference."""
        proposals = [tuple(self.make(space, seed).ask(range(20))) for seed in (0, 1)]
        assert proposals[0] != proposals[1]
        assert len(set(proposals[0])) > 1

    def test_the_order_and_grouping_of_results_do_not_matter(self, space: SearchSpace) -> None:
        """The state afterwards is the same, to the last bit."""
        trials = play(self.make(space, 0), self.trials)
        states = []
        for seed in range(3):
            strategy = self.make(space, 0)
            rng = random.Random(seed)
            shuffled = rng.sample(trials, len(trials))
            while shuffled:
                size = rng.randint(1, 12)
                strategy.tell(shuffled[:size])
                shuffled = shuffled[size:]
            states.append(strategy.state_dict())
        at_once = self.make(space, 0)
        at_once.tell(trials)
        assert all(states_equal(at_once.state_dict(), state) for state in states)

    def test_a_result_told_again_changes_nothing(self, space: SearchSpace) -> None:
        """`tell` is idempotent by trial id."""
        strategy = self.make(space, 0)
        trials = play(strategy, self.trials)
        before = strategy.state_dict()
        strategy.tell(trials)
        strategy.tell([*trials[-3:], *trials[-3:]])
        assert states_equal(before, strategy.state_dict())

    def test_the_state_is_json_and_arrays(self, space: SearchSpace) -> None:
        """Nothing that would need pickle."""
        strategy = self.make(space, 0)
        play(strategy, self.trials)
        state = strategy.state_dict()
        assert set(state) == {"tensors", "json"}
        assert json.loads(json.dumps(state["json"], allow_nan=False)) == state["json"]
        for name, array in state["tensors"].items():
            assert isinstance(array, np.ndarray), name
            assert array.flags.c_contiguous, name
            assert array.dtype.kind in "biuf", name

    def test_the_state_is_a_copy(self, space: SearchSpace) -> None:
        """A checkpoint being written is not changed by further learning."""
        strategy = self.make(space, 0)
        play(strategy, self.trials)
        state = strategy.state_dict()
        kept = through_files(state)
        play(strategy, self.trials, first=self.trials)
        assert states_equal(state, kept)

    def test_a_restored_strategy_goes_on_as_if_never_stopped(self, space: SearchSpace) -> None:
        """Same proposals, same state, to the last bit."""
        strategy = self.make(space, 0)
        play(strategy, self.trials)
        restored = self.make(space, 0)
        restored.ask([0])  # whatever it did before is forgotten
        restored.load_state_dict(through_files(strategy.state_dict()))
        assert states_equal(strategy.state_dict(), restored.state_dict())
        more = [play(each, self.trials, first=self.trials) for each in (strategy, restored)]
        assert more[0] == more[1]
        assert states_equal(strategy.state_dict(), restored.state_dict())
        assert strategy.best_guess() == restored.best_guess()
        assert strategy.diagnostics() == restored.diagnostics()

    def test_an_older_state_can_be_returned_to(self, space: SearchSpace) -> None:
        """Loading forgets all that came after."""
        strategy = self.make(space, 0)
        start = strategy.state_dict()
        trials = play(strategy, self.trials)
        strategy.load_state_dict(start)
        assert states_equal(start, strategy.state_dict())
        assert play(strategy, self.trials) == trials

    def test_failed_trials_are_survived(self, space: SearchSpace) -> None:
        """A reward of None is no reward, also for a whole group."""
        strategy = self.make(space, 0)
        asked = strategy.ask(range(self.trials))
        strategy.tell([Scored(i, a, None) for i, a in enumerate(asked)])
        trials = play(strategy, self.trials, first=self.trials)
        some = [Scored(t.trial_id, t.architecture, None) for t in trials[::3]]
        strategy.tell(some)
        space.graph(strategy.ask([1000])[0])

    @pytest.mark.parametrize("reward", [float("nan"), float("inf"), float("-inf")])
    def test_a_reward_that_is_no_number_is_refused(self, reward: float) -> None:
        """The error names the trial, and nothing was taken in."""
        strategy = self.make(TOY_SPACES[self.spaces[0]](), 0)
        before = strategy.state_dict()
        good, bad = strategy.ask([0, 1])
        with pytest.raises(HwnasError, match="trial 1"):
            strategy.tell([Scored(0, good, 0.5), Scored(1, bad, reward)])
        assert states_equal(before, strategy.state_dict())

    def test_the_best_guess_belongs_to_the_space(self, space: SearchSpace) -> None:
        """It is buildable or None, before and after learning."""
        strategy = self.make(space, 0)
        for first in (0, self.trials):
            guess = strategy.best_guess()
            if guess is not None:
                space.graph(guess)
            play(strategy, self.trials, first=first)

    def test_diagnostics_are_finite_numbers(self, space: SearchSpace) -> None:
        """They can be stored and plotted."""
        strategy = self.make(space, 0)
        play(strategy, self.trials)
        values = strategy.diagnostics()
        assert all(isinstance(name, str) for name in values)
        assert all(type(v) is float and np.isfinite(v) for v in values.values()), values

    def test_the_configuration_survives_json(self) -> None:
        """What the run folder stores gives the same settings."""
        config = self.make(TOY_SPACES[self.spaces[0]](), 0).config
        dumped: dict[str, Any] = json.loads(config.model_dump_json())
        assert type(config).model_validate(dumped) == config

    def test_every_setting_is_described(self) -> None:
        """And has a default."""
        config = type(self.make(TOY_SPACES[self.spaces[0]](), 0).config)
        for name, field in config.model_fields.items():
            assert field.description, name
            assert not field.is_required(), f"{name} has no default"
