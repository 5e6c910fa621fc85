"""TuNAS's absolute reward."""

from __future__ import annotations

from pydantic import Field

from hwnas.objectives import REWARDS, Reward


@REWARDS.register("tunas_absolute")
class TunasAbsolute(Reward):
    """Accuracy + β · |T / T₀ − 1|: draws the search to the target from both sides.

    R = Q + β · |T / T₀ − 1| + γ · |S / S₀ − 1| with the accuracy Q, latency T in ms and training
    time S in s; β = γ = −0.10 by default. Being faster than the target is penalised as well, so
    that the latency found lands on the target without tuning β for each.
    Source: Bender et al. 2020, "Can Weight Sharing Outperform Random Architecture Search?", arXiv
    2008.06120, and `abs` in google-research/tunas. Training time was added here, by the same law.
    """

    class Config(Reward.Config):
        """Settings of the absolute reward."""

        latency_weight: float = Field(
            -0.10, ge=-100, le=0, description="β: reward for each 100 % off the latency target."
        )
        train_time_weight: float = Field(
            -0.10, ge=-100, le=0, description="γ: reward for each 100 % off the time target."
        )

    def apply(self, value: float, ratio: float, weight: float) -> float:
        """Return `value + weight · |ratio − 1|`."""
        return value + weight * abs(ratio - 1.0)
