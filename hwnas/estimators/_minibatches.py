"""Which data a step sees: a function of the run's seed and the step's number alone."""

from __future__ import annotations

from collections.abc import Iterator

from hwnas.data import Dataset
from hwnas.estimators._seeds import derive_seed
from hwnas.supernet.tasks import Batch, task_of


class Minibatches:
    """The batches of a search.

    Args:
        dataset: Its train and valid splits are used, never test.
        seed: Seed of the run.
        size: Training images a step, or columns of a text.
        valid_size: Validation images a batch; the whole split where it is smaller.

    Attributes:
        task: What is learned.
    """

    def __init__(self, dataset: Dataset, seed: int, size: int, valid_size: int) -> None:
        self.task = task_of(dataset)
        self._dataset = dataset
        self._seed = seed
        self._size = size
        self._valid_size = valid_size

    @property
    def train_count(self) -> int:
        """Full batches in one epoch."""
        return self.task.steps(self._dataset, self._size)

    @property
    def valid_count(self) -> int:
        """Full validation batches."""
        return self.task.valid_steps(self._dataset, self._valid_size)

    def train(self, epoch: int) -> Iterator[Batch]:
        """Return the training batches of one epoch.

        Raises:
            UserInputError: A batch is larger than the split.
        """
        seed = derive_seed(self._seed, "train-order", epoch)
        return self.task.epoch(self._dataset, self._size, seed)

    def train_plain(self, count: int) -> list[Batch]:
        """Return `count` training batches (fewer if there are fewer) without augmentation."""
        seed = derive_seed(self._seed, "calibration-order")
        return self.task.plain(self._dataset, self._size, seed, count)

    def valid(self, number: int) -> Batch:
        """Return a validation batch; numbers beyond the last begin again at the first."""
        seed = derive_seed(self._seed, "valid-order")
        return self.task.valid(self._dataset, self._valid_size, seed, number % self.valid_count)
