"""What every reward shares: accuracy first, then one penalty for each resource with a target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from pydantic import Field

from hwnas.errors import HwnasError
from hwnas.objectives.metrics import Metrics, Targets
from hwnas.registry import PluginConfig


class Reward(ABC):
    """Makes one number, larger is better, out of accuracy, latency and training time.

    The resources are treated alike: latency T with its target T₀ and training time S with its
    target S₀ each enter through the dimensionless ratio r = T / T₀ or S / S₀, each with a weight of
    its own. So no form depends on the unit, and with r = 1 everywhere the reward is the accuracy.
    A resource without a target plays no part; without any target the reward is the accuracy.

    The published forms know latency only. That training time enters by the same law is a choice
    made here.

    Args:
        config: The settings, an instance of the class's `Config`.
        targets: The target of each resource.
    """

    class Config(PluginConfig):
        """Settings that every reward has."""

        latency_weight: float = Field(
            description="How much latency counts against accuracy.", allow_inf_nan=False
        )
        train_time_weight: float = Field(
            description="How much training time counts against accuracy.", allow_inf_nan=False
        )

    def __init__(self, config: Reward.Config, targets: Targets) -> None:
        self.config = config
        self.targets = targets

    @abstractmethod
    def apply(self, value: float, ratio: float, weight: float) -> float:
        """Return `value` after the penalty for one resource.

        Args:
            value: The accuracy, or what earlier penalties left of it.
            ratio: The resource over its target, positive, without unit.
            weight: The resource's weight.
        """

    def reward(self, metrics: Metrics) -> float:
        """Return the reward of one child; NaN if its accuracy is.

        Raises:
            HwnasError: A resource has a target, but its metric is missing or zero.
        """
        value = metrics.accuracy
        for ratio, weight in self._ratios(metrics):
            value = self.apply(value, ratio, weight)
        return value

    def _ratios(self, metrics: Metrics) -> Iterator[tuple[float, float]]:
        for name in ("latency_ms", "train_time_s"):
            target, metric = getattr(self.targets, name), getattr(metrics, name)
            if target is None:
                continue
            if not metric:
                raise HwnasError(
                    f"the objective has the target {name} = {target:g}, but this child's {name} "
                    f"is {'not known' if metric is None else 'zero'}",
                    f"measure or predict {name} before the reward, or remove its target",
                )
            is_latency = name == "latency_ms"
            yield (
                metric / target,
                self.config.latency_weight if is_latency else self.config.train_time_weight,
            )
