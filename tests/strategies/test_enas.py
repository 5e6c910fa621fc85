from __future__ import annotations

import json
import random
from statistics import mean

import numpy as np
import pytest
import torch

from hwnas.errors import UserInputError
from hwnas.strategies import Scored
from hwnas.strategies.enas import PUBLISHED, Enas, scope_of
from hwnas.strategies.random import Random
from hwnas.testing.strategies import (
    TOY_SPACES,
    StrategySuite,
    ToyCells,
    ToyConditional,
    ToySkips,
    ToySpace,
    play,
    states_equal,
)


def make(space, seed, **settings):
    return Enas(Enas.Config(**{"lstm_size": 16, **settings}), space, seed)


class TestEnas(StrategySuite):
    make = staticmethod(make)


class TestEnasWithEverySettingMoved(StrategySuite):
    trials = 17
    make = staticmethod(
        lambda space, seed: make(
            space,
            seed,
            samples_per_update=7,
            temperature=2.0,
            tanh_constant=None,
            has_bias=False,
            adam_beta1=0.5,
            grad_clip=0.1,
            entropy_form="action",
            entropy_in="loss",
            entropy_weight=0.01,
            baseline_start="zero",
            baseline_before_advantage=False,
            skip_weight=0.8,
            dtype="float64",
        )
    )


class TestEnasAsPublishedForMacro(StrategySuite):
    trials = 25
    spaces = ("skips",)
    make = staticmethod(lambda space, seed: make(space, seed, **PUBLISHED["macro"]))


# --- the gradient ---------------------------------------------------------------------------


def samples_of(strategy, count):
    asked = strategy.ask(range(count))
    rng = random.Random(0)
    return [(a, strategy._decisions_of(a, 0), rng.random()) for a in asked]


@pytest.mark.parametrize("space", list(TOY_SPACES))
@pytest.mark.parametrize("entropy_in", ["reward", "loss"])
def test_the_gradient_of_an_update_agrees_with_finite_differences(space, entropy_in):
    strategy = make(
        TOY_SPACES[space](),
        seed=1,
        lstm_size=5,
        dtype="float64",
        init_range=0.8,
        entropy_weight=0.3,
        entropy_in=entropy_in,
        skip_weight=0.8,
    )
    group = samples_of(strategy, 4)
    learner = strategy._learner
    advantages = torch.tensor([0.3, -0.2, 0.5, 0.1], dtype=torch.float64)
    learner.score(group)  # makes the weights
    gradients = learner._gradients(learner.loss(learner.score(group), advantages))
    rng = random.Random(0)
    for name, gradient in gradients.items():
        flat = learner.weights.tensors[name].detach().view(-1)
        for place in rng.sample(range(len(flat)), min(4, len(flat))):
            losses = []
            for delta in (1e-6, -1e-6):
                flat[place] += delta
                losses.append(learner.loss(learner.score(group), advantages).item())
                flat[place] -= delta
            slope = (losses[0] - losses[1]) / 2e-6
            assert gradient.view(-1)[place].item() == pytest.approx(slope, abs=1e-8), name


def test_entropy_in_the_reward_has_no_gradient_of_its_own():
    """As published: with the same advantages, its weight changes nothing."""
    gradients = []
    for weight in (0.0, 0.5):
        strategy = make(ToyCells(), 0, entropy_weight=weight, dtype="float64")
        learner = strategy._learner
        score = learner.score(samples_of(strategy, 3))
        gradients.append(learner._gradients(learner.loss(score, torch.ones(3).double())))
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_entropy_in_the_reward_is_added_before_the_baseline():
    strategy = make(ToyCells(), 0, entropy_weight=0.1, dtype="float64", baseline_start="zero")
    learner = strategy._learner
    score = learner.score(samples_of(strategy, 3))
    advantages = learner._advantages([0.2, 0.4, 0.6], score)
    b = 0.0
    for i, reward in enumerate([0.2, 0.4, 0.6]):
        total = reward + 0.1 * score.entropy[i].item()
        b -= 0.01 * (b - total)
        assert advantages[i].item() == pytest.approx(total - b, abs=1e-12)
    assert learner.baseline.value == pytest.approx(b, abs=1e-12)


def test_architectures_with_the_same_decisions_are_scored_as_if_alone():
    strategy = make(ToyConditional(), 3, dtype="float64")
    group = samples_of(strategy, 12)
    assert len({decisions for _, decisions, _ in group}) > 3
    together = strategy._learner.score(group)
    for i, sample in enumerate(group):
        alone = strategy._learner.score([sample])
        assert together.log_prob[i].item() == pytest.approx(alone.log_prob.item(), abs=1e-12)
        assert together.entropy[i].item() == pytest.approx(alone.entropy.item(), abs=1e-12)


# --- learning -------------------------------------------------------------------------------

FAST = {"lstm_size": 32, "samples_per_update": 10}


def late_mean(strategy, reward, trials=400):
    return mean(trial.reward for trial in play(strategy, trials, reward=reward, batch=10)[-50:])


class Predecessors(ToySpace):
    def picks(self, pick):
        for i in range(5):
            pick.predecessor(f"node{i}/input", i + 2)


def chain_reward(architecture):
    """The share of nodes that read the node just before."""
    return mean(answer == i + 1 for i, answer in enumerate(architecture.values()))


def skip_reward(architecture):
    """The share of skip bits that are as wanted: layers skip from layer 0 only."""
    bits = [
        (i in architecture[f"layer{layer}/skips"]) == (i == 0)
        for layer in range(4)
        for i in range(layer)
    ]
    return mean(bits)


def target_reward(architecture):
    """The share of ops that are the wanted one: convolutions in front, pools behind."""
    wanted = [
        answer == ("conv" if name.startswith("normal") else "pool")
        for name, answer in architecture.items()
        if "op" in name
    ]
    return mean(wanted)


def deep_reward(architecture):
    """Depth 4 with kernel 5 everywhere is best; a conditional space."""
    kernels = [answer for name, answer in architecture.items() if "kernel" in name]
    return (architecture["depth"] + kernels.count(5)) / 8


@pytest.mark.parametrize(
    ("space", "reward"),
    [
        (ToyCells, target_reward),
        (Predecessors, chain_reward),
        (ToySkips, skip_reward),
        (ToyConditional, deep_reward),
    ],
    ids=["ops", "predecessor", "predecessors", "conditional"],
)
def test_enas_learns_what_random_search_does_not(space, reward):
    enas = make(space(), 0, **FAST)
    by_chance = late_mean(Random(Random.Config(), space(), 0), reward)
    assert late_mean(enas, reward) > by_chance + 0.15
    assert reward(enas.best_guess()) > by_chance + 0.15
    assert enas.diagnostics()["updates"] == 40


def conv_reward(architecture):
    """The share of ops that are convolutions."""
    return ops_of(architecture).count("conv") / len(ops_of(architecture))


def test_the_published_settings_learn_too():
    """More slowly, and the tanh bounds the policy for one op of three to 55 %."""
    settings = {**PUBLISHED["micro"], "initial_bias": {}, "constant_bias": {}, "lstm_size": 32}
    enas = make(ToyCells(), 0, **settings)
    play(enas, 300, reward=conv_reward, batch=10)
    assert conv_reward(enas.best_guess()) == 1


def test_entropy_falls_as_the_controller_learns():
    enas = make(ToyCells(), 0, **FAST)
    play(enas, 10, reward=target_reward)
    first = enas.diagnostics()
    play(enas, 190, reward=target_reward, first=10)
    last = enas.diagnostics()
    assert last["entropy"] < first["entropy"]
    assert last["baseline"] > first["baseline"]


# --- groups and failures --------------------------------------------------------------------


def test_nothing_is_learned_before_a_group_is_complete():
    strategy = make(ToyCells(), 0)
    start = strategy.ask(range(20))
    trials = [Scored(i, a, i / 10) for i, a in enumerate(start)]
    strategy.tell(trials[1:10])
    assert strategy.diagnostics() == {}
    assert strategy.ask(range(20)) == start
    strategy.tell(trials[:1])
    assert strategy.diagnostics()["updates"] == 1


def test_failed_trials_are_left_out_of_the_average():
    strategy, other = make(ToyCells(), 0), make(ToyCells(), 0, samples_per_update=8)
    asked = strategy.ask(range(10))
    rewards = [0.1 * i for i in range(8)]
    strategy.tell([Scored(i, a, (*rewards, None, None)[i]) for i, a in enumerate(asked)])
    other.tell([Scored(i, a, rewards[i]) for i, a in enumerate(asked[:8])])
    mine, theirs = strategy.state_dict(), other.state_dict()
    assert strategy.diagnostics() == other.diagnostics()
    assert states_equal(
        {"tensors": mine["tensors"], "json": mine["json"]["own"]},
        {"tensors": theirs["tensors"], "json": theirs["json"]["own"]},
    )


def test_a_group_that_failed_as_a_whole_is_skipped():
    strategy = make(ToyCells(), 0)
    asked = strategy.ask(range(20))
    strategy.tell([Scored(i, a, None) for i, a in enumerate(asked[:10])])
    assert strategy.diagnostics() == {}
    strategy.tell([Scored(i, a, 0.5) for i, a in enumerate(asked) if i >= 10])
    assert strategy.diagnostics()["updates"] == 1


def test_an_architecture_of_another_space_is_refused():
    strategy = make(ToyCells(), 0, samples_per_update=1)
    foreign = make(ToySkips(), 0).ask([0])[0]
    with pytest.raises(UserInputError, match="belongs to another space"):
        strategy.tell([Scored(0, foreign, 0.5)])


def test_results_are_stored_compactly():
    strategy = make(ToyCells(), 0)
    play(strategy, 30)
    short = strategy.state_dict()
    play(strategy, 120, first=30)
    long = strategy.state_dict()
    assert len(json.dumps(long["json"])) < len(json.dumps(short["json"])) + 100
    assert long["tensors"].keys() == short["tensors"].keys()


def test_weights_that_were_never_trained_are_not_stored():
    strategy = make(ToyConditional(), 0)
    strategy.ask(range(50))
    assert strategy.state_dict()["tensors"] == {}


# --- settings -------------------------------------------------------------------------------


def test_a_bias_for_an_unknown_option_names_the_nearest():
    with pytest.raises(UserInputError, match=r"no option 'pol'.*\n.*'pool'"):
        make(ToyCells(), 0, initial_bias={"pol": 1.0})
    with pytest.raises(UserInputError, match=r"scope 'norml'.*\n.*'normal'"):
        make(ToyCells(), 0, constant_bias={"norml": {"conv": 1.0}})
    with pytest.raises(UserInputError, match=r"constant_bias\.normal.*'pol'"):
        make(ToyCells(), 0, constant_bias={"normal": {"pol": 1.0}})


def test_biases_shift_the_policy():
    biased = make(ToyCells(), 0, initial_bias={"pool": 10.0}, op_tanh_reduce=0.2)
    assert set(ops_of(biased.best_guess())) == {"pool"}
    shifted = make(ToyCells(), 0, constant_bias={"normal": {"identity": 9.0}})
    assert set(ops_of(shifted.best_guess(), "normal")) == {"identity"}
    assert set(ops_of(shifted.best_guess(), "reduction")) != {"identity"}


def ops_of(architecture, cell=""):
    return [v for k, v in architecture.items() if "/op" in k and k.startswith(cell)]


def test_a_high_temperature_flattens_the_policy():
    entropies = []
    for temperature in (None, 10.0):
        strategy = make(ToyCells(), 0, temperature=temperature, init_range=1.0)
        play(strategy, 10)
        entropies.append(strategy.diagnostics()["entropy"])
    assert entropies[0] < entropies[1] <= np.log(5)


@pytest.mark.parametrize(
    ("name", "scope"),
    [("normal/node2/input1", "normal"), ("layer3/op", ""), ("depth", ""), ("a/b/c/d", "a")],
)
def test_the_scope_of_a_pick_is_the_first_of_three_parts(name, scope):
    assert scope_of(name) == scope


def test_the_published_settings_are_valid():
    assert set(PUBLISHED) == {"micro", "macro", "language"}
    for settings in PUBLISHED.values():
        Enas.Config(**settings)
