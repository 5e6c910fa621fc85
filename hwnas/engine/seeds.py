"""Seeds derived from the run's seed; estimators, a room below, use them too."""

from hwnas.estimators._seeds import derive_seed

__all__ = ["derive_seed"]
