"""Settings of the search."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hwnas.registry import PluginConfig
from hwnas.supernet.config import OptimiserConfig


class SearchOptimiserConfig(OptimiserConfig):
    """SGD with the warm restarts of ENAS micro's search: cosines of 10, 20, 40 … epochs."""

    first_period: int | None = Field(
        10, ge=1, description="epochs of the first cosine; null: one cosine over all epochs"
    )

    @model_validator(mode="after")
    def _ends_with_its_last_weights(self) -> SearchOptimiserConfig:
        if self.average_from is not None:
            raise ValueError("average_from: shared weights are not averaged, only a child's own")
        return self


class SearchConfig(PluginConfig):
    """How long to search and with how much data a step.

    The defaults are those published for ENAS micro on CIFAR-10 (Pham et al. 2018 and the code that
    came with it): 150 epochs, batches of 160, one child a training step, and after each epoch 30
    controller steps of 10 children, each scored on one validation batch.
    """

    loop: Literal["one_shot", "trials"] = Field(
        "one_shot", description="one_shot: shared weights; trials: each child on its own"
    )
    time_budget_s: float | None = Field(
        None, gt=0, description="stop after the epoch or trial in which this time runs out"
    )

    epochs: int = Field(150, ge=1, description="one_shot: passes over the training images")
    batch_size: int = Field(160, ge=1, description="one_shot: training images a step")
    children_per_step: int = Field(
        1, ge=1, description="one_shot: children a training step; their losses are averaged"
    )
    optimiser: SearchOptimiserConfig = Field(
        default_factory=SearchOptimiserConfig,
        description="one_shot: how the shared weights are trained",
    )
    recoveries: int = Field(
        0,
        ge=0,
        description="one_shot: how often an epoch whose training diverged is begun anew from the "
        "checkpoint before it, with other children",
    )
    controller_steps: int = Field(
        30, ge=0, description="one_shot: steps of the strategy after each epoch"
    )
    teach_from: int = Field(
        0,
        ge=0,
        description="one_shot: finished epochs before the strategy learns; until then the shared "
        "weights are trained on what it samples at its start",
    )
    controller_samples: int = Field(
        10, ge=1, description="one_shot: children scored in each step of the strategy"
    )
    valid_batch_size: int = Field(
        160, ge=1, description="one_shot: validation images on which a child is scored"
    )

    trials: int = Field(100, ge=1, description="trials: how many children to evaluate")
    max_failures: int = Field(
        10, ge=1, description="trials: give up after so many failures in a row"
    )

    derive_samples: int = Field(
        10, ge=1, description="one_shot: children of the final comparison, all within the budgets"
    )
    derive_batches: int = Field(
        10, ge=1, description="one_shot: validation batches on which these are compared"
    )
    derive_statistics: Literal["batch", "recalibrated"] = Field(
        "batch",
        description="one_shot: batch norm in the comparison: each batch's own statistics, as in "
        "ENAS, or running ones measured anew for each child on training images",
    )
