from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from hwnas.errors import UserInputError
from hwnas.graph import Pick
from hwnas.spaces import SPACES
from hwnas.strategies import STRATEGIES, UNTOLD_IDS, Scored
from hwnas.strategies.random import Random
from hwnas.testing.strategies import StrategySuite, ToyCells, ToySkips, ToySpace, play


def make(space, seed):
    return Random(Random.Config(), space, seed)


class TestRandom(StrategySuite):
    make = staticmethod(make)


class OneOfEach(ToySpace):
    def picks(self, pick: Pick) -> None:
        pick.one_of("op", ("a", "b", "c"))
        pick.integer("width", 4, 20, step=4)
        pick.predecessor("input", 4)
        pick.predecessors("skips", 3)


def test_each_decision_is_answered_uniformly():
    samples = 4000
    asked = make(OneOfEach(), seed=3).ask(range(samples))
    for decision in OneOfEach().decisions():
        counts = Counter(decision.encode(a[decision.name]) for a in asked)
        expected = samples / decision.count
        chi_square = sum((counts[i] - expected) ** 2 / expected for i in range(decision.count))
        # The 99.9 % quantile of chi-square with 7 degrees of freedom is 24.3.
        assert chi_square < 24.3, (decision.name, counts)


def test_decisions_are_answered_independently():
    asked = make(ToyCells(), seed=0).ask(range(3000))
    pairs = Counter((a["normal/node0/op1"], a["normal/node0/op2"]) for a in asked)
    assert len(pairs) == 9
    assert all(abs(count - 3000 / 9) < 80 for count in pairs.values()), pairs


def test_random_prefers_nothing():
    assert make(ToySkips(), 0).best_guess() is None


def test_results_are_stored_compactly():
    strategy = make(ToySkips(), 0)
    play(strategy, 300)
    assert len(json.dumps(strategy.state_dict()["json"])) < 100


def test_results_that_came_too_early_are_kept():
    strategy = make(ToySkips(), 0)
    trials = play(make(ToySkips(), 0), 6)
    strategy.tell(trials[3:])
    assert [each[0] for each in strategy.state_dict()["json"]["waiting"]] == [3, 4, 5]
    strategy.tell(trials[:3])
    assert strategy.state_dict()["json"]["waiting"] == []


@pytest.mark.parametrize("trial_id", [-1, UNTOLD_IDS])
def test_ids_that_are_never_told_are_refused(trial_id):
    strategy = make(ToySkips(), 0)
    with pytest.raises(ValueError, match=str(trial_id)):
        strategy.tell([Scored(trial_id, strategy.ask([0])[0], 0.5)])


def test_a_state_of_another_seed_is_refused():
    with pytest.raises(UserInputError, match="seed 1"):
        make(ToySkips(), 0).load_state_dict(make(ToySkips(), 1).state_dict())


def test_both_strategies_are_registered():
    assert {"enas", "random"} <= set(STRATEGIES.names())
    assert all(STRATEGIES.describe(name) for name in STRATEGIES.names())


VISION_TRANSFORMER = Path(__file__).parents[2] / "examples" / "vision_transformer.py"
#: Settings of spaces that have no space without them.
REQUIRED = {
    "module": {"model": f"{VISION_TRANSFORMER}:VisionTransformer", "settings": {"max_depth": 2}}
}


@pytest.mark.parametrize("space_name", SPACES.names())
@pytest.mark.parametrize("strategy_name", STRATEGIES.names())
def test_every_strategy_searches_every_space(strategy_name, space_name):
    space_class, strategy_class = SPACES.get(space_name), STRATEGIES.get(strategy_name)
    shape = (5,) if space_class.task == "language_model" else (3, 32, 32)
    space = space_class(space_class.Config(**REQUIRED.get(space_name, {})), shape, 10)
    strategy = strategy_class(strategy_class.Config(), space, 0)
    trials = play(strategy, 10, reward=lambda architecture: len(architecture.id) / 12)
    space.graph(trials[0].architecture)
    guess = strategy.best_guess()
    assert guess is None or space.graph(guess)


def test_listing_strategies_does_not_import_torch():
    code = (
        "import sys; from hwnas.strategies import STRATEGIES\n"
        "for _, strategy in STRATEGIES.items(): strategy.Config()\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
