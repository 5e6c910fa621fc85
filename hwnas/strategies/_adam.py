"""Adam over named tensors, as small as the controllers that it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

Form = Literal["paper", "tensorflow"]


class Adam:
    """Adam (Kingma & Ba 2015), with state by parameter name and both readings of epsilon.

    With ``m``, ``v`` the running means of gradient and squared gradient and ``t`` the number of
    steps that a parameter has taken::

        paper       θ -= lr · m̂ / (√v̂ + ε)          m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ)
        tensorflow  θ -= lr · m̂ √(1−β₂ᵗ) / (√v + ε)   ("epsilon hat" of the paper's section 2)

    They agree for ε = 0. With the published ε = 1e-3 and the small gradients of a controller,
    TensorFlow's first steps are up to 30 times smaller.

    A parameter takes part from the first step that brings a gradient for it, so that the weights of
    rare decisions may come later; ``t`` counts its own steps. (`torch.optim.Adam` does the same,
    but keys its state by position, which depends on who came first.)

    Args:
        lr: Learning rate.
        betas: Decay of the two running means.
        epsilon: Added to the denominator.
        form: How epsilon is read.
    """

    def __init__(
        self, lr: float, betas: tuple[float, float], epsilon: float, form: Form = "paper"
    ) -> None:
        self.lr = lr
        self.betas = betas
        self.epsilon = epsilon
        self.form = form
        self.steps: dict[str, int] = {}
        self.mean: dict[str, Tensor] = {}
        self.square: dict[str, Tensor] = {}

    @torch.no_grad()
    def step(self, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """Move every parameter that has a gradient, in place."""
        beta1, beta2 = self.betas
        for name, gradient in gradients.items():
            if name not in self.steps:
                self.steps[name] = 0
                self.mean[name] = torch.zeros_like(gradient)
                self.square[name] = torch.zeros_like(gradient)
            self.steps[name] += 1
            mean, square, t = self.mean[name], self.square[name], self.steps[name]
            mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            correction = (1 - beta2**t) ** 0.5
            if self.form == "paper":
                denominator = square.sqrt().div_(correction).add_(self.epsilon)
            else:
                denominator = square.sqrt().add_(self.epsilon).div_(correction)
            parameters[name].addcdiv_(mean, denominator, value=-self.lr / (1 - beta1**t))
