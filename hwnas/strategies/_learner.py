"""How the controller of ENAS learns: groups of rewards, one step of Adam each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hwnas.graph.architecture import Architecture
from hwnas.graph.pick import Decision
from hwnas.strategies import StrategyState
from hwnas.strategies._adam import Adam
from hwnas.strategies._controller import Policy, Weights
from hwnas.strategies._reinforce import Baseline, Score, clip_by_global_norm, reinforce_loss

if TYPE_CHECKING:
    from hwnas.strategies.enas import Enas

#: An architecture, the decisions that it answers, and its reward.
Sample = tuple[Architecture, tuple[Decision, ...], float]


class Learner:
    """A policy, its optimiser and its baseline.

    Args:
        config: The strategy's settings.
        seed: Seed of the start weights.
    """

    def __init__(self, config: Enas.Config, seed: int) -> None:
        self.config = config
        dtype = torch.float64 if config.dtype == "float64" else torch.float32
        self.weights = Weights(seed, config.init_range, dtype)
        self.policy = Policy(config, self.weights)
        self.diagnostics: dict[str, float] = {}
        self._reset()

    def learn(self, group: Sequence[Sample]) -> None:
        """Take one step towards architectures that scored above the baseline."""
        updates = int(self.diagnostics.get("updates", 0.0))
        if self.config.baseline_every is not None and updates % self.config.baseline_every == 0:
            self.baseline = self._new_baseline()
        score = self.score(group)
        rewards = [reward for _, _, reward in group]
        advantages = self._advantages(rewards, score)
        gradients = self._gradients(self.loss(score, advantages))
        norm = clip_by_global_norm(gradients, self.config.grad_clip)
        self.adam.step(self.weights.tensors, gradients)
        decisions = sum(len(decisions) for _, decisions, _ in group)
        self.diagnostics = {
            "updates": updates + 1.0,
            "reward": sum(rewards) / len(rewards),
            "baseline": self.baseline.value or 0.0,
            "advantage": float(advantages.abs().mean()),
            "log_prob": float(score.log_prob.detach().mean()),
            "entropy": float(score.entropy.detach().sum()) / max(decisions, 1),
            "gradient_norm": norm,
        }

    def score(self, group: Sequence[Sample]) -> Score:
        """Replay the samples; those with the same decisions go through the LSTM together."""
        places: dict[tuple[Decision, ...], list[int]] = {}
        for place, (_, decisions, _) in enumerate(group):
            places.setdefault(decisions, []).append(place)
        scores = [
            self.policy.score(decisions, [group[place][0] for place in members])
            for decisions, members in places.items()
        ]
        order = torch.tensor([place for members in places.values() for place in members]).argsort()
        return Score(
            torch.cat([each.log_prob for each in scores])[order],
            torch.cat([each.entropy for each in scores])[order],
            torch.cat([each.action_entropy for each in scores])[order],
            torch.cat([each.skip_penalty for each in scores])[order],
        )

    def loss(self, score: Score, advantages: Tensor) -> Tensor:
        """Return the loss whose gradient is one REINFORCE update."""
        weight = self.config.entropy_weight
        return reinforce_loss(
            score.log_prob,
            advantages,
            penalty=self.config.skip_weight * score.skip_penalty,
            entropy=weight * self._entropy(score) if self.config.entropy_in == "loss" else None,
        )

    def state_dict(self) -> StrategyState:
        """Return weights, optimiser, baseline and diagnostics.

        Weights that no update has moved are left out: they follow from the seed.
        """
        tensors: dict[str, np.ndarray] = {}
        for name in sorted(self.adam.steps):
            tensors[f"weights/{name}"] = _to_numpy(self.weights.tensors[name])
            tensors[f"adam/mean/{name}"] = _to_numpy(self.adam.mean[name])
            tensors[f"adam/square/{name}"] = _to_numpy(self.adam.square[name])
        return {
            "tensors": tensors,
            "json": {
                "adam_steps": dict(sorted(self.adam.steps.items())),
                "baseline": self.baseline.value,
                "diagnostics": dict(self.diagnostics),
            },
        }

    def load_state_dict(self, state: StrategyState) -> None:
        """Restore what `state_dict` returned."""
        self._reset()
        self.baseline.value = state["json"]["baseline"]
        self.diagnostics = dict(state["json"]["diagnostics"])
        for name, steps in state["json"]["adam_steps"].items():
            self.adam.steps[name] = steps
            self.adam.mean[name] = torch.tensor(state["tensors"][f"adam/mean/{name}"])
            self.adam.square[name] = torch.tensor(state["tensors"][f"adam/square/{name}"])
            weight = torch.tensor(state["tensors"][f"weights/{name}"])
            self.weights.tensors[name] = weight.requires_grad_()

    def _reset(self) -> None:
        c = self.config
        self.weights.tensors.clear()
        betas = (c.adam_beta1, c.adam_beta2)
        self.adam = Adam(c.lr, betas, c.adam_epsilon, c.adam_form)
        self.baseline = self._new_baseline()

    def _new_baseline(self) -> Baseline:
        c = self.config
        return Baseline(c.baseline_decay, c.baseline_start, c.baseline_before_advantage)

    def _advantages(self, rewards: Sequence[float], score: Score) -> Tensor:
        """Return the advantages in the order of the trial ids, and move the baseline."""
        if self.config.entropy_in == "reward":
            bonus = (self.config.entropy_weight * self._entropy(score)).detach().tolist()
        else:
            bonus = [0.0] * len(rewards)
        values = [self.baseline.advantage(r + b) for r, b in zip(rewards, bonus, strict=True)]
        return torch.tensor(values, dtype=self.weights.dtype)

    def _entropy(self, score: Score) -> Tensor:
        return score.entropy if self.config.entropy_form == "policy" else score.action_entropy

    def _gradients(self, loss: Tensor) -> dict[str, Tensor]:
        names = sorted(self.weights.tensors)
        tensors = [self.weights.tensors[name] for name in names]
        found: Sequence[Tensor | None] = torch.autograd.grad(loss, tensors, allow_unused=True)
        return {name: g for name, g in zip(names, found, strict=True) if g is not None}


def _to_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy().copy()
