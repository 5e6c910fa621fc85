"""The algorithms that move weights, against torch.optim or their published equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas.supernet.config import OptimiserConfig
from hwnas.supernet.optimiser import Optimiser

ALGORITHMS = ("sgd", "rmsprop", "adam", "adamw")
STEPS, RATE, DECAY = 6, 0.05, 0.01


def gradients(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "conv": torch.randn(3, 2, 3, 3, generator=generator),
        "bias": torch.randn(4, generator=generator),
    }


def start() -> dict[str, torch.Tensor]:
    return {name: value.requires_grad_() for name, value in gradients(1000).items()}


def take(optimiser: Optimiser, weights: dict[str, torch.Tensor], steps: range) -> None:
    for step in steps:
        for name, value in gradients(step).items():
            weights[name].grad = value
        optimiser.step(weights, RATE)


@pytest.mark.parametrize("algorithm", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_are_those_of_torch(algorithm, nesterov):
    config = OptimiserConfig(
        algorithm=algorithm, momentum=0.8, nesterov=nesterov, weight_decay=DECAY
    )
    ours, theirs = start(), start()
    take(Optimiser(config), ours, range(STEPS))
    if algorithm == "sgd":
        twin = torch.optim.SGD(
            theirs.values(), RATE, momentum=0.8, nesterov=nesterov, weight_decay=DECAY
        )
    else:
        made = torch.optim.Adam if algorithm == "adam" else torch.optim.AdamW
        twin = made(theirs.values(), RATE, betas=(0.8, 0.999), weight_decay=DECAY)
    for step in range(STEPS):
        for name, value in gradients(step).items():
            theirs[name].grad = value
        twin.step()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("epsilon", [None, 1e-3])
def test_rmsprop_is_that_of_tensorflow(epsilon):
    """Documentation of tf.compat.v1.train.RMSPropOptimizer; its mean square starts at 1."""
    config = OptimiserConfig(
        algorithm="rmsprop", momentum=0.9, weight_decay=DECAY, square_decay=0.7, epsilon=epsilon
    )
    ours = start()
    take(Optimiser(config), ours, range(STEPS))
    for name, value in start().items():
        w = value.detach().numpy().astype(np.float64)
        square, move = np.ones_like(w), np.zeros_like(w)
        for step in range(STEPS):
            g = gradients(step)[name].numpy() + DECAY * w
            square = 0.7 * square + 0.3 * g**2
            move = 0.9 * move + RATE * g / np.sqrt(square + (epsilon or 1.0))
            w = w - move
        np.testing.assert_allclose(ours[name].detach().numpy(), w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_going_on_from_its_state_changes_nothing(algorithm):
    config = OptimiserConfig(algorithm=algorithm)
    through, stopped = start(), start()
    take(Optimiser(config), through, range(STEPS))
    first, second = Optimiser(config), Optimiser(config)
    take(first, stopped, range(2))
    second.load({name: value.clone() for name, value in first.state().items()})
    take(second, stopped, range(2, STEPS))
    for name, value in through.items():
        torch.testing.assert_close(stopped[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_weight_without_gradient_is_left_alone(algorithm):
    optimiser, weights = Optimiser(OptimiserConfig(algorithm=algorithm)), start()
    weights["bias"].grad = torch.ones(4)
    optimiser.step(weights, RATE)
    torch.testing.assert_close(weights["conv"], start()["conv"], rtol=0, atol=0)
    assert not torch.equal(weights["bias"], start()["bias"])
    assert {key.partition("/")[2] for key in optimiser.state()} == {"bias"}


def test_the_mean_of_the_weights_is_that_of_torch_and_survives_a_checkpoint():
    config = OptimiserConfig(average_from=2)
    optimiser, weights = Optimiser(config), start()
    averaged = torch.optim.swa_utils.AveragedModel(torch.nn.ParameterDict(start()))
    for step in range(STEPS):
        take(optimiser, weights, range(step, step + 1))
        if step >= 2:
            optimiser.average(weights)
            averaged.update_parameters(torch.nn.ParameterDict(weights))
        if step == 3:  # a kill
            again = Optimiser(config)
            again.load(optimiser.state())
            optimiser = again
    last = {name: value.detach().clone() for name, value in weights.items()}
    optimiser.end(weights)
    for name, value in averaged.module.items():
        torch.testing.assert_close(weights[name], value)
        assert not torch.allclose(weights[name], last[name])
