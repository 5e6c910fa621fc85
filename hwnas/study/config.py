"""`RunConfig`: everything that a run depends on, as one YAML file says it.

Every mistake of a file is reported at once, with its line, and an unknown key with the nearest
known ones. A resolved configuration can be written and read again without a change.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hwnas.engine.config import SearchConfig
from hwnas.study.sections import (
    SPACE,
    DataSection,
    EstimatorSection,
    ExecutorSection,
    Plugin,
    RewardSection,
    RuntimeSection,
    SpaceSection,
    StrategySection,
    below,
)
from hwnas.study.yaml_file import dump
from hwnas.supernet.config import OptimiserConfig

Role = Literal["best", "knee", "fastest", "baseline"]


class _Section(BaseModel):
    """Unknown keys are mistakes; values do not change once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _default(name: str) -> Any:
    """Make a section's default: the plug-in called `name` with its own defaults."""
    return Field(default_factory=lambda: {"name": name})


class ObjectiveConfig(_Section):
    """What a good architecture is."""

    reward: RewardSection = _default("mnasnet_soft")
    max_latency_ms: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="latency budget in ms at batch 1; null: accuracy alone",
    )
    latency_percentile: float | None = Field(
        None,
        gt=0,
        le=100,
        description="budget relative to the space, where max_latency_ms is null: this share of "
        "random networks, in per cent, is within it",
    )
    max_train_time_s: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="budget for the training time of one child in s; null: none",
    )


class TrainConfig(_Section):
    """How the networks that the search picked are trained, from scratch."""

    picks: tuple[Role, ...] = Field(
        ("best",), min_length=1, description="which ones: best, knee, fastest, baseline"
    )
    epochs: int = Field(60, ge=1, description="passes over the training images")
    batch_size: int = Field(64, ge=1, description="training images a step")
    optimiser: OptimiserConfig = Field(
        default_factory=OptimiserConfig, description="learning rate, momentum, decay, clipping"
    )
    space: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of the space that differ from the search's: what is trained, priced "
        "and exported may be deeper and wider than what was searched; the picks are the same",
    )


class LatencyConfig(_Section):
    """Which device the network is for, and what is known of its speed."""

    skip: bool = Field(
        False,
        description="profile and predict nothing, and let accuracy alone count; for unrolled "
        "recurrent networks, whose kernels take seconds to look up for each of them",
    )
    runtime: RuntimeSection = _default("onnxruntime")
    table: str = Field(
        "auto",
        description="a table's file; auto: a packaged one of this device, else measured now",
    )
    profile_samples: int = Field(
        40, ge=2, description="networks of the space whose kernels are measured"
    )
    profile_rounds: int = Field(
        4, ge=1, description="visits to every kernel, spread over the measuring"
    )
    check_samples: int = Field(
        0, ge=0, description="networks measured after the search, to judge the predictions"
    )


class RunConfig(_Section):
    """The whole configuration file."""

    name: str = Field(
        "run",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=80,
        description="part of the run folder's name",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of everything random")
    threads: int | None = Field(
        None,
        ge=1,
        description="threads of training; null: one for each core. Results repeat bit by bit only "
        "with the same number",
    )
    data: DataSection = _default("digits")
    space: SpaceSection = _default("conv_chain")
    architecture: str | dict[str, Any] | None = Field(
        None,
        description="train this one instead of searching: its picks, a JSON file with them, "
        "published:NAME (see: hwnas ls networks), or the text that the space's own tools print",
    )
    strategy: StrategySection = _default("enas")
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)
    estimator: EstimatorSection = _default("from_scratch")
    executor: ExecutorSection = _default("serial")
    trackers: Literal["auto"] | list[str] = Field(
        "auto", description="see: hwnas ls trackers; auto: those that are installed"
    )
    train: TrainConfig = Field(default_factory=TrainConfig)
    latency: LatencyConfig = Field(default_factory=LatencyConfig)

    @model_validator(mode="after")
    def _check_skip(self) -> RunConfig:
        """Refuse a latency budget where latency is not looked at."""
        budgets = (self.objective.max_latency_ms, self.objective.latency_percentile)
        if self.latency.skip and any(each is not None for each in budgets):
            raise ValueError("latency.skip and a latency budget in objective exclude each other")
        return self

    @model_validator(mode="after")
    def _check_deployed(self) -> RunConfig:
        """Refuse settings in `train.space` that the space does not have."""
        try:
            self.deployed_space()
        except ValidationError as error:
            raise below(("train", "space"), error) from None
        return self

    def deployed_space(self) -> Plugin:
        """Return the space of the networks that are trained, priced and exported."""
        searched = self.space.model_dump(mode="json")
        return SPACE.validate(searched | self.train.space)

    def to_mapping(self) -> dict[str, Any]:
        """Return all fields as JSON values, defaults included."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return a file that reads back as this configuration."""
        return dump(self.to_mapping())
