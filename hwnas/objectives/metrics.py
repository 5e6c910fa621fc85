"""What is known of one child: accuracy, latency, training time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwnas.errors import HwnasError, UserInputError


@dataclass(frozen=True)
class Metrics:
    """What one evaluation yields.

    Attributes:
        accuracy: Share of validation images that are classified correctly, 0 to 1. NaN marks a
            child whose training diverged; its reward is NaN too.
        latency_ms: Milliseconds for one image on the device; None if not known.
        train_time_s: Seconds of training; None if not known.

    Raises:
        HwnasError: A value outside its range. An accuracy in per cent is the usual cause.
    """

    accuracy: float
    latency_ms: float | None = None
    train_time_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that can only come from a mistake, such as a wrong unit."""
        if not (0.0 <= self.accuracy <= 1.0 or math.isnan(self.accuracy)):
            raise HwnasError(f"an accuracy must be from 0 to 1, not {self.accuracy}")
        for name in ("latency_ms", "train_time_s"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value < math.inf:
                raise HwnasError(f"{name} must be finite and not negative, not {value}")


@dataclass(frozen=True)
class Targets:
    """What the user allows one child to cost; None where it does not matter.

    Attributes:
        latency_ms: Milliseconds for one image on the device.
        train_time_s: Seconds of training.

    Raises:
        UserInputError: A target that is not positive and finite.
    """

    latency_ms: float | None = None
    train_time_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse targets that no child could meet, or that say nothing."""
        for name in ("latency_ms", "train_time_s"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise UserInputError(f"the target {name} must be positive and finite, not {value}")
