"""What a one-shot search has learned, as a checkpoint and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hwnas.engine.checkpoints import Checkpoint
from hwnas.errors import RunFolderError
from hwnas.strategies import Strategy
from hwnas.supernet.train import Trainer
from hwnas.supernet.weights import WeightStore

_WEIGHTS, _OPTIMISER, _STRATEGY = "weights/", "optimiser/", "strategy/"


def pack(
    store: WeightStore, trainer: Trainer, strategy: Strategy
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return all that was learned as tensors and JSON."""
    learned = strategy.state_dict()
    arrays = {name: torch.from_numpy(np.array(a)) for name, a in learned["tensors"].items()}
    tensors = _prefixed(_WEIGHTS, store.state())
    tensors |= _prefixed(_OPTIMISER, trainer.optimiser.state())
    tensors |= _prefixed(_STRATEGY, arrays)
    return tensors, {"strategy": learned["json"]}


def unpack(
    checkpoint: Checkpoint,
    store: WeightStore,
    strategy: Strategy,
    trainer: Trainer | None = None,
) -> None:
    """Put back what `pack` returned; without a trainer, the optimiser's state is left out.

    Raises:
        RunFolderError: The checkpoint is of something else.
    """
    try:
        learned = checkpoint.state["strategy"]
    except KeyError:
        raise RunFolderError("the checkpoint is not one of a one-shot search") from None
    store.load(_with(_WEIGHTS, checkpoint.tensors))
    arrays = {name: value.numpy() for name, value in _with(_STRATEGY, checkpoint.tensors).items()}
    strategy.load_state_dict({"tensors": arrays, "json": learned})
    if trainer is not None:
        trainer.optimiser.load(_with(_OPTIMISER, checkpoint.tensors))


def _prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


def _with(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
