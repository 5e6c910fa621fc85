"""Scores a child by training it with weights of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pydantic import Field

from hwnas.estimators import ESTIMATORS, Estimator
from hwnas.objectives.metrics import Metrics
from hwnas.registry import PluginConfig
from hwnas.supernet.config import OptimiserConfig

if TYPE_CHECKING:
    from hwnas.data import Dataset
    from hwnas.graph.architecture import Architecture
    from hwnas.spaces import SearchSpace


@ESTIMATORS.register("from_scratch")
class FromScratch(Estimator):
    """Trains each child on its own for some epochs; accuracy on the validation split."""

    class Config(PluginConfig):
        """Settings of `from_scratch`."""

        epochs: int = Field(10, ge=1, description="passes over the training images")
        batch_size: int = Field(64, ge=1, description="training images a step")
        valid_batch_size: int = Field(512, ge=1, description="validation images at once")
        optimiser: OptimiserConfig = Field(
            default_factory=OptimiserConfig, description="how the weights are trained"
        )

    config: Config

    def __init__(self, config: Config, *, space: SearchSpace, dataset: Dataset, seed: int) -> None:
        super().__init__(config, space=space, dataset=dataset, seed=seed)

    def evaluate(self, architecture: Architecture, trial_id: int) -> Metrics:
        """Train and score; `train_time_s` is the wall time that the training took here.

        Raises:
            TrialFailed: The training diverged.
        """
        from hwnas.estimators._seeds import derive_seed
        from hwnas.estimators._training import score_child, train_child
        from hwnas.supernet.weights import WeightStore

        graph = self.space.graph(architecture)
        seed = derive_seed(self.seed, "trial", trial_id)
        store = WeightStore(seed)
        start = time.monotonic()
        for _ in train_child(
            graph,
            store,
            self.dataset,
            self.config.optimiser,
            epochs=self.config.epochs,
            batch_size=self.config.batch_size,
            seed=seed,
        ):
            pass
        train_time_s = time.monotonic() - start
        accuracy = score_child(
            graph, store, self.dataset, self.dataset.valid, self.config.valid_batch_size
        )
        return Metrics(accuracy=accuracy, latency_ms=None, train_time_s=train_time_s)
