"""Settings of the training of weights; importing them does not import torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hwnas.registry import PluginConfig


class OptimiserConfig(PluginConfig):
    """How weights are trained; the defaults are those of ENAS micro on CIFAR-10.

    ``rmsprop`` is TensorFlow's, of NASNet, MnasNet and NAS-Bench-101: its mean square starts at 1
    and its epsilon is inside the root. ``adamw`` keeps the decay of the weights out of the
    gradient, ``adam`` adds it to the gradient as the others do.
    """

    algorithm: Literal["sgd", "rmsprop", "adam", "adamw"] = Field(
        "sgd", description="sgd, rmsprop (TensorFlow's), adam or adamw"
    )
    learning_rate: float = Field(0.05, gt=0, description="highest learning rate")
    final_learning_rate: float = Field(0.0005, ge=0, description="lowest learning rate")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="momentum; adam: share of the old mean gradient, beta 1"
    )
    nesterov: bool = Field(True, description="sgd: whether the momentum is Nesterov's")
    square_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the old mean squared gradient (adam: beta 2); null: 0.9 of rmsprop, "
        "0.999 of adam",
    )
    epsilon: float | None = Field(
        None,
        gt=0,
        description="keeps the root of the mean square from 0; null: 1 of rmsprop (published "
        "networks have it), 1e-8 of adam",
    )
    weight_decay: float = Field(1e-4, ge=0, description="L2 coefficient")
    clip_norm: float = Field(5.0, gt=0, description="largest global norm of the gradient")
    first_period: int | None = Field(
        None, ge=1, description="epochs of the first cosine; null: one cosine over all epochs"
    )
    period_multiplier: float = Field(
        2.0, ge=1, description="each cosine's length over the previous one's"
    )
    schedule: Literal["cosine", "exponential"] = Field(
        "cosine", description="exponential: times `decay` each epoch from `decay_from` on"
    )
    decay: float = Field(0.96, gt=0, le=1, description="exponential: factor of an epoch")
    decay_from: int = Field(15, ge=0, description="exponential: first epoch that it applies to")
    average_from: int | None = Field(
        None,
        ge=0,
        description="train: epoch from which the weights of all steps are averaged; the average is "
        "what training ends with (averaged SGD); null: the last weights",
    )
    warmup_epochs: float = Field(0.0, ge=0, description="epochs of linear warm-up")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing")
    auxiliary_weight: float = Field(
        0.4, ge=0, description="weight of an auxiliary classifier's loss, where the space has one"
    )
    activation_penalty: float = Field(
        0.0, ge=0, description="text: weight of the mean square of the dropped output (AR)"
    )
    slowness_penalty: float = Field(
        0.0, ge=0, description="text: weight of the mean squared step of the output (TAR)"
    )
    norm_penalty: float = Field(
        0.0, ge=0, description="text: weight of the outputs' squared distance from norm 5"
    )

    @property
    def square_decay_used(self) -> float:
        """`square_decay`, or the algorithm's own."""
        return self.square_decay or (0.9 if self.algorithm == "rmsprop" else 0.999)

    @property
    def epsilon_used(self) -> float:
        """`epsilon`, or the algorithm's own."""
        return self.epsilon or (1.0 if self.algorithm == "rmsprop" else 1e-8)
