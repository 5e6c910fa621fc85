"""How weights are moved: the algorithms of `OptimiserConfig`, with their state by weight name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from hwnas.supernet.config import OptimiserConfig

#: What each algorithm remembers of a weight, and the start of it.
_SLOTS: Mapping[str, Mapping[str, float]] = {
    "sgd": {"momentum": 0.0},
    "rmsprop": {"momentum": 0.0, "square": 1.0},
    "adam": {"momentum": 0.0, "square": 0.0, "steps": 0.0},
    "adamw": {"momentum": 0.0, "square": 0.0, "steps": 0.0},
}


class Optimiser:
    """SGD, RMSProp or Adam, for a set of weights that changes from step to step.

    torch.optim's classes hold a fixed list of weights and move all of it; here a step names the
    weights that its children use, and nothing is remembered of the others.

    Args:
        config: Which algorithm, and its settings.
    """

    def __init__(self, config: OptimiserConfig) -> None:
        self.config = config
        self._state: dict[str, dict[str, torch.Tensor]] = {}
        self.load({})

    @property
    def _slots(self) -> Mapping[str, float]:
        return _SLOTS[self.config.algorithm]

    @torch.no_grad()
    def step(self, weights: Mapping[str, torch.Tensor], rate: float) -> None:
        """Move the weights that have a gradient, in place.

        Args:
            weights: By name.
            rate: The learning rate.
        """
        moved = {name: value for name, value in weights.items() if value.grad is not None}
        gradients = [value.grad for value in moved.values() if value.grad is not None]
        values = list(moved.values())
        match self.config.algorithm:
            case "sgd":
                self._sgd(list(moved), values, gradients, rate)
            case "rmsprop":
                self._rmsprop(list(moved), values, gradients, rate)
            case "adam" | "adamw":
                self._adam(list(moved), values, gradients, rate)

    @torch.no_grad()
    def average(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Count the weights of this step into their mean over all steps that were counted.

        Averaged SGD (Polyak & Juditsky 1992), as `torch.optim.ASGD` keeps it.

        Args:
            weights: By name; each has a count of its own.
        """
        counts, means = self._state["averaged"], self._state["average"]
        for name, value in weights.items():
            counts[name] = counts.get(name, torch.zeros(())) + 1
            means[name] = means.get(name, value.detach()).lerp(value.detach(), 1 / counts[name])

    @torch.no_grad()
    def end(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put the means in place of the weights that have one."""
        for name, mean in self._state["average"].items():
            weights[name].copy_(mean)

    def state(self) -> dict[str, torch.Tensor]:
        """Return what is remembered, as ``slot/weight``."""
        return {
            f"{slot}/{name}": value.contiguous()
            for slot, values in self._state.items()
            for name, value in values.items()
        }

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Replace what is remembered by the `state` of a checkpoint."""
        self._state = {slot: {} for slot in (*self._slots, "average", "averaged")}
        for key, value in state.items():
            slot, _, name = key.partition("/")
            # In the layout of the weights, which decides in which order sums are taken, and with
            # that the last bit.
            self._state[slot][name] = _like_weights(value)

    def _remembered(
        self, slot: str, names: Sequence[str], values: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        state, start = self._state[slot], self._slots[slot]
        for name, value in zip(names, values, strict=True):
            if name not in state:
                like = torch.zeros(()) if slot == "steps" else value
                state[name] = torch.full_like(like, start)
        return [state[name] for name in names]

    def _sgd(
        self,
        names: Sequence[str],
        values: list[torch.Tensor],
        gradients: list[torch.Tensor],
        rate: float,
    ) -> None:
        c = self.config
        # torch starts the momentum as the first gradient, which it makes of None.
        buffers = [self._state["momentum"].get(name) for name in names]
        sgd(
            values,
            gradients,
            buffers,
            weight_decay=c.weight_decay,
            momentum=c.momentum,
            lr=rate,
            dampening=0.0,
            nesterov=c.nesterov and c.momentum > 0,
            maximize=False,
            foreach=True,
        )
        found = zip(names, buffers, strict=True)
        self._state["momentum"].update({n: buffer for n, buffer in found if buffer is not None})

    def _rmsprop(
        self,
        names: Sequence[str],
        values: list[torch.Tensor],
        gradients: list[torch.Tensor],
        rate: float,
    ) -> None:
        """Take a step as TensorFlow does: the mean square starts at 1, epsilon is in the root.

        torch.optim's adds epsilon to the root, which is another algorithm when epsilon is 1, as
        published networks have it.
        """
        c = self.config
        squares = self._remembered("square", names, values)
        moves = self._remembered("momentum", names, values)
        gradients = list(torch._foreach_add(gradients, values, alpha=c.weight_decay))
        torch._foreach_mul_(squares, c.square_decay_used)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - c.square_decay_used)
        roots = torch._foreach_add(squares, c.epsilon_used)
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(moves, c.momentum)
        torch._foreach_addcdiv_(moves, gradients, roots, rate)
        torch._foreach_sub_(values, moves)

    def _adam(
        self,
        names: Sequence[str],
        values: list[torch.Tensor],
        gradients: list[torch.Tensor],
        rate: float,
    ) -> None:
        c = self.config
        adam(
            values,
            gradients,
            self._remembered("momentum", names, values),
            self._remembered("square", names, values),
            [],
            self._remembered("steps", names, values),
            foreach=True,
            decoupled_weight_decay=c.algorithm == "adamw",
            amsgrad=False,
            beta1=c.momentum,
            beta2=c.square_decay_used,
            lr=rate,
            weight_decay=c.weight_decay,
            eps=c.epsilon_used,
            maximize=False,
        )


def _like_weights(value: torch.Tensor) -> torch.Tensor:
    if value.ndim != 4:
        return value.clone()
    return value.clone(memory_format=torch.channels_last)
