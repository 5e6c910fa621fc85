"""Trains one architecture from scratch, and evaluates it once on the untouched test split."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hwnas.data import AnySplit, Dataset
from hwnas.engine.checkpoints import Checkpoints
from hwnas.engine.files import replace_file
from hwnas.engine.progress import Progress
from hwnas.engine.seeds import derive_seed
from hwnas.errors import RunFolderError
from hwnas.estimators._training import score_child, train_child
from hwnas.graph.architecture import Architecture
from hwnas.graph.counts import macs, params
from hwnas.study.config import TrainConfig
from hwnas.supernet.tasks import task_of
from hwnas.supernet.train import Trainer
from hwnas.supernet.weights import WeightStore

if TYPE_CHECKING:
    from hwnas.graph import Graph

_EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Trained:
    """What came out of one training.

    Attributes:
        accuracy_valid: On the validation split, in [0, 1]; it chose the architecture, so it is
            optimistic. None if it was trained on.
        accuracy_test: On the test split, in [0, 1], evaluated once after the last epoch.
        final_loss: Mean cross-entropy over the last epoch.
        train_time_s: Seconds of training, evaluation left out.
        epochs: Passes over the training images.
        params: Trained parameters.
        macs: Multiply-accumulates of one inference.
        weights: File of the weights, relative to the run folder.
    """

    accuracy_valid: float | None
    accuracy_test: float
    final_loss: float
    train_time_s: float
    epochs: int
    params: int
    macs: int
    weights: str

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Trained:
        """Read what `to_json` wrote."""
        return cls(**value)


class Training:
    """Trains architectures of one run.

    Args:
        settings: Length, batches and optimiser.
        folder: The run folder; checkpoints of a training that was stopped are found there.
        dataset: The data, with its test split.
        seed: Seed of the run.
        progress: Told how far the training is.
    """

    def __init__(
        self,
        settings: TrainConfig,
        folder: Path,
        dataset: Dataset,
        seed: int,
        progress: Progress,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.dataset = dataset
        self.seed = seed
        self.progress = progress

    def run(self, architecture: Architecture, graph: Graph) -> Trained:
        """Train to the end, from where an earlier attempt stopped.

        The result does not depend on whether the training was interrupted.

        Raises:
            TrialFailed: The training diverged.
            RunFolderError: The folder cannot be written.
        """
        settings = self.settings
        purpose = ("train", architecture.id)
        store = WeightStore(derive_seed(self.seed, *purpose, "weights"))
        trainer = Trainer(store, settings.optimiser, settings.epochs, task_of(self.dataset))
        checkpoints = Checkpoints(self.folder / "artifacts" / f"train-{architecture.id}", keep=1)
        done, seconds, loss = self._restore(checkpoints, store, trainer)
        task = f"train {architecture.id[:6]}"
        self.progress.start(task, settings.epochs)
        self.progress.advance(task, done)
        epochs = train_child(
            graph,
            store,
            self.dataset.with_valid_in_train() if settings.all_images else self.dataset,
            settings.optimiser,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            seed=derive_seed(self.seed, *purpose),
            first_epoch=done,
            trainer=trainer,
        )
        start = time.monotonic()
        for finished in epochs:
            seconds, loss = seconds + time.monotonic() - start, finished.loss
            state = {"seconds": seconds, "loss": loss, "settings": settings.model_dump(mode="json")}
            tensors = {f"weights/{name}": value for name, value in store.state().items()}
            learned = trainer.optimiser.state()
            tensors |= {f"optimiser/{name}": value for name, value in learned.items()}
            checkpoints.save(finished.epoch, tensors, state)
            self.progress.advance(task)
            start = time.monotonic()
        weights = self._save(store, architecture)
        result = Trained(
            accuracy_valid=None
            if settings.all_images
            else self._accuracy(graph, store, self.dataset.valid),
            accuracy_test=self._accuracy(graph, store, self.dataset.test),
            final_loss=loss,
            train_time_s=round(seconds, 3),
            epochs=settings.epochs,
            params=params(graph),
            macs=macs(graph),
            weights=weights,
        )
        shutil.rmtree(checkpoints.folder, ignore_errors=True)
        return result

    def _accuracy(self, graph: Graph, store: WeightStore, split: AnySplit) -> float:
        return score_child(graph, store, self.dataset, split, _EVALUATION_BATCH)

    def _restore(
        self, checkpoints: Checkpoints, store: WeightStore, trainer: Trainer
    ) -> tuple[int, float, float]:
        """Return finished epochs, seconds and the last loss of an earlier attempt."""
        checkpoint = checkpoints.load_latest(
            lambda _step, error: self.progress.note(f"warning: {error.message}")
        )
        settings = self.settings.model_dump(mode="json")
        if checkpoint is None or checkpoint.state.get("settings") != settings:
            return 0, 0.0, float("nan")
        store.load(_below("weights/", checkpoint.tensors))
        trainer.optimiser.load(_below("optimiser/", checkpoint.tensors))
        return checkpoint.step, checkpoint.state["seconds"], checkpoint.state["loss"]

    def _save(self, store: WeightStore, architecture: Architecture) -> str:
        from safetensors.torch import save

        name = f"artifacts/{architecture.id}.safetensors"
        tensors = {key: value.contiguous() for key, value in store.state().items()}
        replace_file(self.folder / name, save(tensors))
        return name


def load_weights(folder: Path, trained: Trained) -> WeightStore:
    """Read the weights of a finished training.

    Raises:
        RunFolderError: The file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / trained.weights
    try:
        tensors = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise RunFolderError(
            f"{path} cannot be read: {error}", f"train it again: hwnas train {folder} --again"
        ) from error
    store = WeightStore(0)
    store.load(tensors)
    return store


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
