"""The reward of ENAS for language models: c / perplexity."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from hwnas.objectives import REWARDS, Targets
from hwnas.objectives.metrics import Metrics
from hwnas.objectives.mnasnet_soft import MnasnetSoft


@REWARDS.register("perplexity")
class Perplexity(MnasnetSoft):
    """c / perplexity · (T / T₀)^w · (S / S₀)^v: for language models; w = v = −0.07.

    A text's score is 1 / perplexity. Pham et al. 2018 (section 3.1) reward a recurrent cell with
    c / perplexity, c = 80; Zoph & Le 2017 with c / perplexity². Latency and training time were
    added here, by the law of `mnasnet_soft`.
    """

    class Config(MnasnetSoft.Config):
        """Settings of the reward."""

        constant: float = Field(80.0, gt=0, description="c, the reward of perplexity 1.")
        power: int = Field(1, ge=1, le=2, description="Of the perplexity: 1 (ENAS) or 2 (Zoph).")

    def __init__(self, config: Config, targets: Targets) -> None:
        super().__init__(config, targets)
        self.constant, self.power = config.constant, config.power

    def reward(self, metrics: Metrics) -> float:
        """Return the reward of one child; NaN if its training diverged.

        Raises:
            HwnasError: A resource has a target, but its metric is missing or zero.
        """
        score = metrics.accuracy**self.power
        return self.constant * super().reward(replace(metrics, accuracy=score))
