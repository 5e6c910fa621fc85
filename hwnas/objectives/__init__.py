"""Objectives: accuracy, latency and training time in one reward, and Pareto fronts."""

from __future__ import annotations

from hwnas.objectives.metrics import Metrics, Targets
from hwnas.objectives.reward import Reward
from hwnas.registry import Registry

__all__ = ["REWARDS", "Metrics", "Reward", "Targets"]

REWARDS: Registry[Reward] = Registry("reward", "hwnas.objectives")
