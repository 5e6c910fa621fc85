from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas.strategies._adam import Adam
from hwnas.strategies._reinforce import Baseline, clip_by_global_norm, reinforce_loss


def test_the_published_baseline_starts_at_zero_and_moves_before_the_advantage_is_taken():
    """general_controller.py: b −= (1 − 0.99)(b − R), then R − b."""
    baseline = Baseline(decay=0.99, start="zero", is_before=True)
    b = 0.0
    for reward in (0.5, 0.7, 0.1):
        b -= (1 - 0.99) * (b - reward)
        assert baseline.advantage(reward) == pytest.approx(reward - b, abs=1e-15)
        assert baseline.value == pytest.approx(b, abs=1e-15)


def test_moving_the_baseline_first_scales_every_advantage_by_the_decay():
    rewards = [0.5, 0.7, 0.1, 0.9]
    before, after = (Baseline(0.9, "first_reward", is_before) for is_before in (True, False))
    for reward in rewards:
        assert before.advantage(reward) == pytest.approx(0.9 * after.advantage(reward), abs=1e-15)
        assert before.value == after.value


def test_a_baseline_that_starts_at_the_first_reward_has_no_first_advantage():
    baseline = Baseline(0.99, "first_reward", is_before=True)
    assert baseline.advantage(0.8) == 0
    assert baseline.advantage(0.9) > 0
    assert baseline.advantage(0.7) < 0


def test_a_baseline_at_zero_pushes_up_every_early_sample():
    """The reason for deviating from the published start."""
    baseline = Baseline(0.99, "zero", is_before=True)
    assert all(baseline.advantage(reward) > 0 for reward in (0.5, 0.4, 0.3, 0.2, 0.1))


def test_adam_with_the_epsilon_of_the_paper_is_torch_adam():
    rng = np.random.default_rng(0)
    ours = torch.tensor(rng.normal(size=(3, 4)))
    theirs = ours.clone().requires_grad_()
    adam = Adam(3.5e-3, (0.3, 0.999), 1e-3)
    reference = torch.optim.Adam([theirs], lr=3.5e-3, betas=(0.3, 0.999), eps=1e-3)
    for _ in range(5):
        gradient = torch.tensor(rng.normal(size=(3, 4)) * 1e-2)
        adam.step({"w": ours}, {"w": gradient})
        theirs.grad = gradient.clone()
        reference.step()
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-12)


def test_adam_with_the_epsilon_of_tensorflow_follows_its_documented_update():
    """lr_t = lr √(1−β₂ᵗ)/(1−β₁ᵗ); θ −= lr_t m / (√v + ε), with the published β₁ = 0."""
    rng = np.random.default_rng(0)
    theta = rng.normal(size=4)
    ours = torch.tensor(theta)
    adam = Adam(3.5e-3, (0.0, 0.999), 1e-3, "tensorflow")
    v = np.zeros(4)
    for t in range(1, 6):
        g = rng.normal(size=4) * 1e-2
        adam.step({"w": ours}, {"w": torch.tensor(g)})
        v = 0.999 * v + 0.001 * g * g
        theta = theta - 3.5e-3 * np.sqrt(1 - 0.999**t) * g / (np.sqrt(v) + 1e-3)
        np.testing.assert_allclose(ours.numpy(), theta, rtol=0, atol=1e-12)


def test_the_first_step_of_the_published_adam_is_much_smaller_with_tensorflow():
    """By 1/√(1−β₂) ≈ 32 for gradients well below epsilon."""
    moved = {}
    for form in ("paper", "tensorflow"):
        weight = torch.zeros(1, dtype=torch.float64)
        Adam(1.0, (0.0, 0.999), 1e-3, form).step({"w": weight}, {"w": torch.tensor([1e-6])})
        moved[form] = -weight.item()
    assert moved["paper"] / moved["tensorflow"] == pytest.approx(0.001**-0.5, rel=1e-2)


def test_a_parameter_that_comes_later_counts_its_own_steps():
    adam = Adam(0.1, (0.9, 0.999), 1e-8)
    weights = {"a": torch.zeros(1), "b": torch.zeros(1)}
    for _ in range(3):
        adam.step(weights, {"a": torch.ones(1)})
    adam.step(weights, {"b": torch.ones(1)})
    assert adam.steps == {"a": 3, "b": 1}
    assert weights["b"].item() == pytest.approx(-0.1, rel=1e-5)


def test_clipping_clips_and_keeps_the_direction():
    """The authors' clip_mode='norm' computes the clipped gradient and applies the other one."""
    gradients = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    assert clip_by_global_norm(gradients, 1.0) == pytest.approx(5.0)
    torch.testing.assert_close(gradients["a"], torch.tensor([0.6]))
    torch.testing.assert_close(gradients["b"], torch.tensor([0.8]))
    assert clip_by_global_norm(gradients, 2.0) == pytest.approx(1.0)
    torch.testing.assert_close(gradients["b"], torch.tensor([0.8]))


def test_the_loss_is_the_mean_over_samples():
    log_prob = torch.tensor([-1.0, -3.0])
    advantages = torch.tensor([0.5, -0.1])
    assert reinforce_loss(log_prob, advantages).item() == pytest.approx((0.5 - 0.3) / 2)
    with_both = reinforce_loss(
        log_prob, advantages, penalty=torch.tensor([2.0, 4.0]), entropy=torch.tensor([1.0, 0.0])
    )
    assert with_both.item() == pytest.approx(0.1 + 3.0 - 0.5)
