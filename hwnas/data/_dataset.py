"""What every data set offers: splits, names, normalisation, and a lock on the test split."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.data._augment import Augment, AugmentConfig
from hwnas.errors import HwnasError, UserInputError
from hwnas.registry import PluginConfig

if TYPE_CHECKING:
    from hwnas.data._text import TextSplit

Shape = tuple[int, ...]
ChannelValues = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, read-only.

    Attributes:
        images: `[N, C, H, W]`, uint8 (0 to 255) or float32 (used as it is). Normalisation and
            models see uint8 divided by 255.
        labels: `[N]` int64, from 0 to the number of classes minus one.

    Raises:
        UserInputError: Wrong dtype or rank, unequal lengths, or no image at all.
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check the parts against each other and make them read-only."""
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.dtype not in (np.uint8, np.float32):
            raise UserInputError(
                f"images must be [N, C, H, W] in uint8 or float32, not {list(images.shape)} "
                f"in {images.dtype}"
            )
        if labels.ndim != 1 or labels.dtype != np.int64:
            raise UserInputError(
                f"labels must be [N] in int64, not {list(labels.shape)} in {labels.dtype}"
            )
        if len(images) != len(labels):
            raise UserInputError(f"{len(images)} images but {len(labels)} labels")
        if len(images) == 0:
            raise UserInputError("a split without any image")
        for name, array in (("images", images), ("labels", labels)):
            frozen = array.view()
            frozen.flags.writeable = False
            object.__setattr__(self, name, frozen)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Split:
        """Return the images at `indices`, in that order."""
        return Split(self.images[indices], self.labels[indices])


AnySplit: TypeAlias = "Split | TextSplit"


class Dataset(ABC):
    """A labelled set of images, or a text, with a train, a valid and a test split.

    Reading is lazy: constructing a data set, `name`, `input_shape` and `class_names` are cheap
    wherever the form of the data allows it. All splits are a function of the configuration alone.

    Args:
        config: The settings, an instance of the class's `Config`.

    Attributes:
        task: What is learned from it: a name in `hwnas.supernet.tasks`.
    """

    task: ClassVar[str] = "classification"

    class Config(PluginConfig):
        """Settings that every data set has."""

        seed: int = Field(
            0, ge=0, description="Seed of the split (not of the run: seeds stay comparable)."
        )
        augment: AugmentConfig = Field(
            AugmentConfig(), description="Random changes to training images."
        )

    name: str

    def __init__(self, config: Dataset.Config) -> None:
        self._settings = config
        self._read: dict[str, AnySplit] = {}  # shared with the view without test
        self._is_test_locked = False
        self._has_valid_in_train = False

    @property
    @abstractmethod
    def input_shape(self) -> Shape:
        """`(C, H, W)` of one image."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, by label."""

    @abstractmethod
    def _read_search(self) -> tuple[AnySplit, AnySplit]:
        """Read the train and the valid split."""

    @abstractmethod
    def _read_test(self) -> AnySplit:
        """Read the test split."""

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def train(self) -> AnySplit:
        """Images to fit weights on.

        Raises:
            UserInputError: The data is missing or unusable.
        """
        train = self._search_split("train")
        if not self._has_valid_in_train:
            return train
        valid = self._search_split("valid")
        if not (isinstance(train, Split) and isinstance(valid, Split)):
            raise UserInputError(
                f"the validation text of {self.name!r} cannot be trained on",
                "train.all_images is for images",
            )
        if "both" not in self._read:
            images = np.concatenate([train.images, valid.images])
            self._read["both"] = Split(images, np.concatenate([train.labels, valid.labels]))
        return self._read["both"]

    @property
    def valid(self) -> AnySplit:
        """Images to compare architectures on.

        Raises:
            UserInputError: The data is missing or unusable.
        """
        return self._search_split("valid")

    @property
    def test(self) -> AnySplit:
        """Images for the final figure only.

        Raises:
            HwnasError: This is the view made by `without_test`.
            UserInputError: The data is missing or unusable.
        """
        if self._is_test_locked:
            raise HwnasError(
                f"the test split of {self.name!r} is locked during a search",
                "compare architectures on .valid; measure the finished network on .test",
            )
        if "test" not in self._read:
            self._read["test"] = self._read_test()
        return self._read["test"]

    @property
    def normalisation(self) -> tuple[ChannelValues, ChannelValues]:
        """Mean and standard deviation of each channel, over the training split of the search.

        In units of the network's input: uint8 images divided by 255. A constant channel gets the
        standard deviation 1, so that it becomes zero and not NaN.
        """
        train = self._search_split("train")
        assert isinstance(train, Split), "a text overrides this"
        images = train.images
        scale = 255.0 if images.dtype == np.uint8 else 1.0
        axes = (0, 2, 3)
        mean = images.mean(axis=axes, dtype=np.float64) / scale
        std = images.std(axis=axes, dtype=np.float64) / scale
        std[std < 1e-8] = 1.0
        return tuple(mean.tolist()), tuple(std.tolist())

    @property
    def augment(self) -> Augment | None:
        """The augmentation for training images; None where the configuration asks for none."""
        config = self._settings.augment
        return Augment(config) if config.is_active else None

    def without_test(self) -> Dataset:
        """Return a view of this data set whose `.test` raises: what a search is given.

        The view shares what has been read, so it costs nothing.
        """
        view = copy.copy(self)
        view._is_test_locked = True
        return view

    def with_valid_in_train(self) -> Dataset:
        """Return a view whose `.train` has the images of `.valid` too: for a last training."""
        view = copy.copy(self)
        view._has_valid_in_train = True
        return view

    def __getstate__(self) -> dict[str, object]:
        """Leave the images behind when sent to another process: it reads them again."""
        return {**self.__dict__, "_read": {}}

    def __copy__(self) -> Dataset:
        """Copy with the images shared (copying would otherwise go through `__getstate__`)."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def _search_split(self, part: str) -> AnySplit:
        if part not in self._read:
            self._read["train"], self._read["valid"] = self._read_search()
        return self._read[part]
