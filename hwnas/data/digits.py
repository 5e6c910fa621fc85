"""Handwritten digits, the default: small, and it ships with scikit-learn."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from hwnas.data import DATASETS, Dataset, Split
from hwnas.data._splits import checked, divided


@DATASETS.register("digits")
class Digits(Dataset):
    """1,797 handwritten digits of 8 by 8 grey pixels; ships with scikit-learn.

    Source: `sklearn.datasets.load_digits`, the test set of UCI's "Optical Recognition of
    Handwritten Digits" (Alpaydin and Kaynak 1998). Intensities 0 to 16 become 0 to 1 in float32.
    """

    class Config(Dataset.Config):
        """Settings of the digits."""

        valid_fraction: float = Field(
            0.2, gt=0, lt=1, description="Share of all images that compare architectures."
        )
        test_fraction: float = Field(
            0.2, gt=0, lt=1, description="Share of all images kept for the final figure."
        )

    name = "digits"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`(1, 8, 8)`."""
        return (1, 8, 8)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The digits."""
        return tuple("0123456789")

    def _read_search(self) -> tuple[Split, Split]:
        train, valid, _ = self._splits()
        return train, valid

    def _read_test(self) -> Split:
        return self._splits()[2]

    def _splits(self) -> tuple[Split, Split, Split]:
        from sklearn.datasets import load_digits

        values, labels = load_digits(return_X_y=True)
        images = (values / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
        whole = checked(Split(images, labels.astype(np.int64)), 10, "digits")
        config = self.config
        fractions = [config.test_fraction, config.valid_fraction]
        test, valid, train = divided(whole.labels, fractions, config.seed, source="digits")
        return whole.take(train), whole.take(valid), whole.take(test)
