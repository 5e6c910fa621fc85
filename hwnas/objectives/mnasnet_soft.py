"""MnasNet's soft constraint."""

from __future__ import annotations

from pydantic import Field

from hwnas.objectives import REWARDS, Reward


@REWARDS.register("mnasnet_soft")
class MnasnetSoft(Reward):
    """Accuracy × (T / T₀)^w: doubling the latency must buy about 5 % more accuracy.

    R = Q · (T / T₀)^w · (S / S₀)^v with the accuracy Q, latency T in ms and training time S in s.
    The default w = v = −0.07 acts on both sides of the target: 2^−0.07 = 0.953.
    Source: Tan et al. 2019, "MnasNet", arXiv 1807.11626, with α = β = w; the same is
    `mnas` in TuNAS. Training time was added here, by the same law.
    """

    class Config(Reward.Config):
        """Settings of MnasNet's soft constraint."""

        latency_weight: float = Field(
            -0.07, ge=-10, le=0, description="Exponent w of latency over its target."
        )
        train_time_weight: float = Field(
            -0.07, ge=-10, le=0, description="Exponent v of training time over its target."
        )

    def apply(self, value: float, ratio: float, weight: float) -> float:
        """Return `value · ratio^weight`."""
        return float(value * ratio**weight)
