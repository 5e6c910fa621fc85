"""What every strategy that follows REINFORCE needs: the baseline and the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Start = Literal["zero", "first_reward"]


class Baseline:
    """Moving average of rewards, ``b ← b − (1 − decay)(b − R)``, and the advantage over it.

    Args:
        decay: Share of the old average that is kept with each reward.
        start: ``first_reward``: the average starts as the first reward; ``zero``: as 0.
        is_before: Whether the average moves before the advantage is taken, which scales every
            advantage by `decay`: ``R − b' = decay · (R − b)``.
    """

    def __init__(self, decay: float, start: Start, is_before: bool) -> None:
        self.decay = decay
        self.is_before = is_before
        self.value: float | None = 0.0 if start == "zero" else None

    def advantage(self, reward: float) -> float:
        """Take in one reward and return by how much it is better than the average."""
        old = reward if self.value is None else self.value
        self.value = old - (1 - self.decay) * (old - reward)
        return reward - (self.value if self.is_before else old)


@dataclass(frozen=True, slots=True)
class Score:
    """How a policy sees `N` architectures. All are `[N]`, sums over an architecture's decisions.

    Attributes:
        log_prob: Log-probability of the architecture.
        entropy: Σ −p log p over the answers of each decision (nats).
        action_entropy: −p log p of the given answer only.
        skip_penalty: Mean KL divergence of the skip probabilities from their target.
    """

    log_prob: Tensor
    entropy: Tensor
    action_entropy: Tensor
    skip_penalty: Tensor


def reinforce_loss(
    log_prob: Tensor,
    advantages: Tensor,
    *,
    penalty: Tensor | None = None,
    entropy: Tensor | None = None,
) -> Tensor:
    """Return ``mean(−log_prob · advantage) + mean(penalty) − mean(entropy)``.

    Args:
        log_prob: `[N]` with the policy's gradient.
        advantages: `[N]` constants.
        penalty: `[N]` weighted penalty.
        entropy: `[N]` weighted entropy, where it is a regulariser and not part of the reward.

    Returns:
        A scalar.
    """
    loss = -(log_prob * advantages).mean()
    if penalty is not None:
        loss = loss + penalty.mean()
    if entropy is not None:
        loss = loss - entropy.mean()
    return loss


def clip_by_global_norm(gradients: dict[str, Tensor], limit: float | None) -> float:
    """Scale all gradients down together, in place, so that their joint norm is at most `limit`.

    Args:
        gradients: By parameter name.
        limit: None leaves them as they are.

    Returns:
        The norm before clipping.
    """
    norm = float(torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt())
    if limit is not None and norm > limit:
        for gradient in gradients.values():
            gradient.mul_(limit / norm)
    return norm
