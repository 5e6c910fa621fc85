"""A supernet is a dictionary of named weights; two children that name the same weight share it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch

from hwnas.errors import HwnasError

if TYPE_CHECKING:
    from hwnas.graph import Graph, WeightSpec


class WeightStore:
    """Named weights, created when a graph first needs them.

    A weight's initial value is a function of the seed and its name alone, so the order in which
    children come up does not matter, and a resumed run creates what the first would have.

    Args:
        seed: Chooses the initial values.
        dtype: Type of the weights.
        device: Where they live.
    """

    def __init__(
        self,
        seed: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.seed = seed
        self.dtype = dtype
        self.device = torch.device(device)
        self._tensors: dict[str, torch.Tensor] = {}

    def __len__(self) -> int:
        """Return the number of weights created so far."""
        return len(self._tensors)

    def __iter__(self) -> Iterator[str]:
        """Iterate over names in order of creation."""
        return iter(self._tensors)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a weight that exists."""
        return self._tensors[name]

    def get(self, name: str, spec: WeightSpec) -> torch.Tensor:
        """Return a weight, creating it when it is new.

        Raises:
            HwnasError: It exists with another shape.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            tensor = self._tensors[name] = self._create(name, spec)
        elif tuple(tensor.shape) != spec.shape:
            raise HwnasError(
                f"weight {name!r} has shape {tuple(tensor.shape)}, a child needs {spec.shape}",
                "children that share a name must agree on the shape",
            )
        elif tensor.requires_grad != spec.is_trainable:  # fresh from a checkpoint
            tensor.requires_grad_(spec.is_trainable)
        return tensor

    def trainable(self, graph: Graph) -> dict[str, torch.Tensor]:
        """Return the trainable weights of a graph by name, creating those that are new."""
        specs = graph.weight_specs()
        return {name: self.get(name, spec) for name, spec in specs.items() if spec.is_trainable}

    def restrict(self, graph: Graph) -> WeightStore:
        """Return a copy with one graph's weights only: a child's own."""
        child = WeightStore(self.seed, self.dtype, self.device)
        for name, spec in graph.weight_specs().items():
            value = self.get(name, spec).detach().clone()
            child._tensors[name] = value.requires_grad_(spec.is_trainable)
        return child

    def state(self) -> dict[str, torch.Tensor]:
        """Return all weights, detached and contiguous, for a checkpoint."""
        return {name: value.detach().contiguous() for name, value in self._tensors.items()}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Replace all weights by those of a checkpoint."""
        self._tensors = {
            name: self._place(value.to(self.dtype, copy=True)) for name, value in state.items()
        }

    def _create(self, name: str, spec: WeightSpec) -> torch.Tensor:
        if spec.init == "zeros":
            value = torch.zeros(spec.shape, dtype=self.dtype)
        elif spec.init == "ones":
            value = torch.ones(spec.shape, dtype=self.dtype)
        else:
            generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}/{name}".encode()))
            if spec.init == "uniform":
                value = torch.rand(spec.shape, generator=generator, dtype=self.dtype)
                value = value.mul_(2 * spec.bound).sub_(spec.bound)
            else:
                value = torch.randn(spec.shape, generator=generator, dtype=self.dtype) * spec.std
        return self._place(value).requires_grad_(spec.is_trainable)

    def _place(self, value: torch.Tensor) -> torch.Tensor:
        value = value.to(self.device)
        return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
