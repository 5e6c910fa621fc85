"""MnasNet's hard constraint."""

from __future__ import annotations

from pydantic import Field

from hwnas.objectives import REWARDS, Reward


@REWARDS.register("mnasnet_hard")
class MnasnetHard(Reward):
    """Accuracy within the target; beyond it, accuracy × (T / T₀)^w, a steep fall.

    R = Q · min(1, (T / T₀)^w) · min(1, (S / S₀)^v) with the accuracy Q, latency T in ms and
    training time S in s; w = v = −1 by default: twice the target halves the reward.
    Source: Tan et al. 2019, "MnasNet", arXiv 1807.11626, with α = 0, β = −1; the same is
    `mnas_hard` in TuNAS. Training time was added here, by the same law.
    """

    class Config(Reward.Config):
        """Settings of MnasNet's hard constraint."""

        latency_weight: float = Field(
            -1.0, ge=-100, le=0, description="Exponent w of latency beyond its target."
        )
        train_time_weight: float = Field(
            -1.0, ge=-100, le=0, description="Exponent v of training time beyond its target."
        )

    def apply(self, value: float, ratio: float, weight: float) -> float:
        """Return `value · max(1, ratio)^weight`, which is the form above without overflow."""
        return float(value * max(1.0, ratio) ** weight)
