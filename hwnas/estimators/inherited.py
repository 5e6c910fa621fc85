"""Scores a changed network by training it on from the weights of the one that it was made from."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hwnas.errors import UserInputError
from hwnas.estimators import ESTIMATORS, Estimator
from hwnas.objectives.metrics import Metrics
from hwnas.registry import PluginConfig
from hwnas.spaces.transform import Transform
from hwnas.supernet.config import OptimiserConfig

if TYPE_CHECKING:
    from hwnas.data import Dataset
    from hwnas.graph import Graph
    from hwnas.graph.architecture import Architecture
    from hwnas.spaces import SearchSpace
    from hwnas.supernet.weights import WeightStore


@ESTIMATORS.register("inherited")
class Inherited(Estimator):
    """Trains the base of `transform` once, and each child some epochs from what it inherits.

    What a child inherits: `hwnas.supernet.inherit`. The base is trained when the first child comes
    up, in each worker process again, from the run's seed alone: children of a resumed run, or of
    another process, inherit the same weights.
    """

    class Config(PluginConfig):
        """Settings of `inherited`."""

        base_epochs: int = Field(
            10, ge=0, description="passes that train the base; 0: weights of base.onnx as they are"
        )
        epochs: int = Field(2, ge=0, description="passes that train a child; 0: only scored")
        noise: float = Field(
            0.01, ge=0, description="tells copied channels apart, in deviations of the weights"
        )
        batch_size: int = Field(64, ge=1, description="training images a step")
        valid_batch_size: int = Field(512, ge=1, description="validation images at once")
        optimiser: OptimiserConfig = Field(
            default_factory=OptimiserConfig, description="how the base's weights are trained"
        )
        child_optimiser: OptimiserConfig | None = Field(
            None, description="how a child's are trained; none: as the base's"
        )

    config: Config

    def __init__(self, config: Config, *, space: SearchSpace, dataset: Dataset, seed: int) -> None:
        super().__init__(config, space=space, dataset=dataset, seed=seed)
        if not isinstance(space, Transform):
            raise UserInputError(
                "estimator inherited: children inherit from the base network of the space "
                "transform",
                "use space.name=transform, or estimator.name=from_scratch",
            )
        self._trained_base: WeightStore | None = None

    def evaluate(self, architecture: Architecture, trial_id: int) -> Metrics:
        """Inherit, train and score; `train_time_s` is without the base's training.

        Raises:
            TrialFailed: The training diverged.
        """
        from hwnas.estimators._seeds import derive_seed
        from hwnas.estimators._training import score_child
        from hwnas.supernet.inherit import inherit

        graph = self.space.graph(architecture)
        base, trained = self._base()
        start = time.monotonic()
        noise = self.config.noise if self.config.epochs else 0.0  # only training needs it
        store = inherit(base, graph, trained, noise=noise)
        optimiser = self.config.child_optimiser or self.config.optimiser
        seed = derive_seed(self.seed, "trial", trial_id)
        self._train(graph, store, optimiser, self.config.epochs, seed)
        train_time_s = time.monotonic() - start
        accuracy = score_child(
            graph, store, self.dataset, self.dataset.valid, self.config.valid_batch_size
        )
        return Metrics(accuracy=accuracy, latency_ms=None, train_time_s=train_time_s)

    def _base(self) -> tuple[Graph, WeightStore]:
        """Return the base network and its weights, trained when they are first needed."""
        import torch

        from hwnas.estimators._seeds import derive_seed
        from hwnas.supernet.weights import WeightStore

        assert isinstance(self.space, Transform)
        graph = self.space.base.graph
        if self._trained_base is None:
            seed = derive_seed(self.seed, "base")
            store = WeightStore(seed)
            given = self.space.base_weights
            if given is not None:
                store.load({name: torch.tensor(value) for name, value in given.items()})
            self._train(graph, store, self.config.optimiser, self.config.base_epochs, seed)
            self._trained_base = store
        return graph, self._trained_base

    def _train(
        self, graph: Graph, store: WeightStore, optimiser: OptimiserConfig, epochs: int, seed: int
    ) -> None:
        from hwnas.estimators._training import train_child

        size = self.config.batch_size
        for _ in train_child(
            graph, store, self.dataset, optimiser, epochs=epochs, batch_size=size, seed=seed
        ):
            pass

    def __getstate__(self) -> dict[str, Any]:
        """Leave the trained base out: another process trains its own."""
        return super().__getstate__() | {"_trained_base": None}
