"""Random search."""

from __future__ import annotations

import random

from hwnas.graph.architecture import Architecture
from hwnas.registry import PluginConfig
from hwnas.strategies import STRATEGIES, Strategy


@STRATEGIES.register("random")
class Random(Strategy):
    """Random search: each decision is answered uniformly, and nothing is learned.

    Uniform over the answers to each decision, not over architectures: where later decisions depend
    on earlier answers, architectures with few decisions are more likely each.
    """

    class Config(PluginConfig):
        """Random search has no settings."""

    def _propose(self, trial_id: int, rng: random.Random) -> Architecture:
        return self._realise(lambda each: each.decode(rng.randrange(each.count)), trial_id)
