"""The weighted sum."""

from __future__ import annotations

from pydantic import Field

from hwnas.objectives import REWARDS, Reward


@REWARDS.register("weighted_linear")
class WeightedLinear(Reward):
    """Accuracy − λ · (T / T₀ − 1): a fixed price for time, on both sides of the target.

    R = Q − λ · (T / T₀ − 1) − μ · (S / S₀ − 1) with the accuracy Q, latency T in ms and training
    time S in s; λ = μ = 0.1 by default: twice the target costs ten points of accuracy, and being
    faster is rewarded without end.
    Source: ProxylessNAS's `add#linear`, λ · (E − ref) / ref added to the loss (Cai et al. 2019,
    arXiv 1812.00332, and its code), with the sign of a reward; NNI's additive penalty with the
    linear form is the same. Training time was added here, by the same law.
    """

    class Config(Reward.Config):
        """Settings of the weighted sum."""

        latency_weight: float = Field(
            0.1, ge=0, le=100, description="λ: accuracy that 100 % of the latency target is worth."
        )
        train_time_weight: float = Field(
            0.1, ge=0, le=100, description="μ: accuracy that 100 % of the time target is worth."
        )

    def apply(self, value: float, ratio: float, weight: float) -> float:
        """Return `value − weight · (ratio − 1)`."""
        return value - weight * (ratio - 1.0)
