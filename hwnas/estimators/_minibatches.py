"""Which images a step sees: a function of the run's seed and the step's number alone."""

from __future__ import annotations

from collections.abc import Iterator

from hwnas.data import Dataset, batches
from hwnas.estimators._seeds import derive_seed
from hwnas.supernet.train import Batch


class Minibatches:
    """The batches of a search.

    Args:
        dataset: Its train and valid splits are used, never test.
        seed: Seed of the run.
        size: Training images a step.
        valid_size: Validation images a batch; the whole split where it is smaller.
    """

    def __init__(self, dataset: Dataset, seed: int, size: int, valid_size: int) -> None:
        self._dataset = dataset
        self._seed = seed
        self._size = size
        self._valid_size = min(valid_size, len(dataset.valid))
        self._normalise = dataset.normalisation

    @property
    def train_count(self) -> int:
        """Full batches in one epoch."""
        return len(self._dataset.train) // self._size

    @property
    def valid_count(self) -> int:
        """Full validation batches; a short one would have poor statistics for batch norm."""
        return len(self._dataset.valid) // self._valid_size

    def train(self, epoch: int) -> Iterator[Batch]:
        """Return the training batches of one epoch, shuffled and augmented.

        Raises:
            UserInputError: A batch is larger than the split.
        """
        return batches(
            self._dataset.train,
            self._size,
            seed=derive_seed(self._seed, "train-order", epoch),
            normalise=self._normalise,
            augment=self._dataset.augment,
            shuffle=True,
            drop_last=True,
        )

    def train_plain(self, count: int) -> list[Batch]:
        """Return `count` training batches (fewer if there are fewer) without augmentation."""
        found = batches(
            self._dataset.train,
            self._size,
            seed=derive_seed(self._seed, "calibration-order"),
            normalise=self._normalise,
            shuffle=True,
            drop_last=False,
        )
        return [batch for batch, _ in zip(found, range(count), strict=False)]

    def valid(self, number: int) -> Batch:
        """Return a validation batch; numbers beyond the last begin again at the first."""
        return next(
            batches(
                self._dataset.valid,
                self._valid_size,
                # Shuffled once: stored data is often sorted by class.
                seed=derive_seed(self._seed, "valid-order"),
                normalise=self._normalise,
                shuffle=True,
                drop_last=True,
                start=number % self.valid_count,
            )
        )
