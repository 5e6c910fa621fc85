"""Estimators: what a child scores. One file an estimator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from hwnas.registry import PluginConfig, Registry

if TYPE_CHECKING:
    from hwnas.data import Dataset
    from hwnas.graph.architecture import Architecture
    from hwnas.objectives.metrics import Metrics
    from hwnas.spaces import SearchSpace


class Estimator(ABC):
    """Measures what an architecture is worth.

    It can be pickled, so that worker processes can use it; the images are not sent along but read
    again there.

    Args:
        config: The estimator's settings.
        space: Where the architectures are from.
        dataset: Its train and valid splits are used, never test.
        seed: Seed of the run.
    """

    Config: ClassVar[type[PluginConfig]] = PluginConfig

    def __init__(
        self, config: PluginConfig, *, space: SearchSpace, dataset: Dataset, seed: int
    ) -> None:
        self.config = config
        self.space = space
        self.dataset = dataset.without_test()
        self.seed = seed

    @abstractmethod
    def evaluate(self, architecture: Architecture, trial_id: int) -> Metrics:
        """Return the metrics of an architecture; the trial's id seeds what is random.

        Raises:
            TrialFailed: It cannot be evaluated; others may be.
        """

    def __getstate__(self) -> dict[str, Any]:
        """Send what the space is made of: its cache of graphs cannot be pickled."""
        space = self.space
        recipe = (type(space), space.config, space.input_shape, space.classes)
        return self.__dict__ | {"space": recipe}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the space again."""
        kind, *arguments = state["space"]
        self.__dict__.update(state | {"space": kind(*arguments)})


ESTIMATORS: Registry[Estimator] = Registry("estimator", "hwnas.estimators")
