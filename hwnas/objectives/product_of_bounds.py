"""The product of bounds."""

from __future__ import annotations

from pydantic import Field

from hwnas.objectives import REWARDS, Reward


@REWARDS.register("product_of_bounds")
class ProductOfBounds(Reward):
    """Accuracy × Π min(1, bound / value)^w: full accuracy within all bounds, less beyond each.

    R = Q · min(1, T₀ / T)^w · min(1, S₀ / S)^v with the accuracy Q, latency T in ms and training
    time S in s; w = v = 1 by default (chosen here: each bound as strong as accuracy itself).
    Source: the form of the reward in Sony's nnabla-nas; only the default weights are ours.
    It is meant for several bounds at once, so training time enters as published for any resource.
    """

    class Config(Reward.Config):
        """Settings of the product of bounds."""

        latency_weight: float = Field(
            1.0, ge=0, le=100, description="Exponent w of the latency bound over latency."
        )
        train_time_weight: float = Field(
            1.0, ge=0, le=100, description="Exponent v of the time bound over training time."
        )

    def apply(self, value: float, ratio: float, weight: float) -> float:
        """Return `value · min(1, 1 / ratio)^weight`."""
        return float(value * min(1.0, 1.0 / ratio) ** weight)
