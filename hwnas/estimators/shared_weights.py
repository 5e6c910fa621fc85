"""Scores a child with the weights that a one-shot search left."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hwnas.errors import UserInputError
from hwnas.estimators import ESTIMATORS, Estimator
from hwnas.objectives.metrics import Metrics
from hwnas.registry import PluginConfig

if TYPE_CHECKING:
    from hwnas.data import Dataset
    from hwnas.estimators._minibatches import Minibatches
    from hwnas.graph.architecture import Architecture
    from hwnas.spaces import SearchSpace
    from hwnas.supernet.weights import WeightStore


@ESTIMATORS.register("shared_weights")
class SharedWeights(Estimator):
    """Scores each child with the shared weights of a finished one-shot run, without training."""

    class Config(PluginConfig):
        """Settings of `shared_weights`."""

        weights: str | None = Field(
            None, description="run folder of a one-shot search, or a safetensors file"
        )
        batches: int = Field(10, ge=1, description="validation batches on which a child is scored")
        batch_size: int = Field(160, ge=1, description="validation images a batch")

    config: Config

    def __init__(self, config: Config, *, space: SearchSpace, dataset: Dataset, seed: int) -> None:
        super().__init__(config, space=space, dataset=dataset, seed=seed)
        if config.weights is None:
            raise UserInputError(
                "the estimator shared_weights needs the weights of a one-shot search",
                "set estimator.weights to its run folder",
            )
        self._path = _tensors_of(Path(config.weights))

    def evaluate(self, architecture: Architecture, trial_id: int) -> Metrics:
        """Score with each batch's own statistics; all children see the same images.

        Raises:
            UserInputError: The weights cannot be read.
        """
        from hwnas.graph import BATCH
        from hwnas.supernet.train import evaluate

        batches = self._batches
        count = min(self.config.batches, batches.valid_count)
        found = (batches.valid(number) for number in range(count))
        accuracy = evaluate(self.space.graph(architecture), self._store, found, BATCH, batches.task)
        return Metrics(accuracy=accuracy, latency_ms=None, train_time_s=None)

    @cached_property
    def _batches(self) -> Minibatches:
        from hwnas.estimators._minibatches import Minibatches

        size = self.config.batch_size
        return Minibatches(self.dataset, self.seed, size=size, valid_size=size)

    @cached_property
    def _store(self) -> WeightStore:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from hwnas.supernet.weights import WeightStore

        try:
            tensors = load_file(self._path)
        except (OSError, SafetensorError) as error:
            raise UserInputError(
                f"{self._path} cannot be read: {error}", "use another checkpoint of that run"
            ) from error
        store = WeightStore(self.seed)
        # A checkpoint also holds the optimiser and the strategy, each under its own prefix.
        prefix = "weights/"
        shared = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        store.load(shared or tensors)
        return store

    def __getstate__(self) -> dict[str, Any]:
        """Leave the weights behind: the other process reads them from the file."""
        state = super().__getstate__()
        return {k: v for k, v in state.items() if k not in ("_store", "_batches")}


def _tensors_of(path: Path) -> Path:
    """Return the safetensors file that a path means: itself, or a run's newest checkpoint."""
    if path.is_file():
        return path
    found = sorted(path.glob("checkpoints/[0-9]*/tensors.safetensors"))
    found = [each for each in found if each.parent.name.isdigit()]
    if not found:
        raise UserInputError(
            f"{path} is neither a file nor a run folder with a checkpoint",
            "set estimator.weights to the folder of a one-shot run",
        )
    return found[-1]
