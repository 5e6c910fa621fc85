"""CIFAR-10, from the folder of the original download or from Parquet files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.data import DATASETS, Dataset, Split
from hwnas.data._augment import CifarAugmentConfig
from hwnas.data._splits import Indices, checked, stratified
from hwnas.errors import UserInputError

_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_BATCHES = "cifar-10-batches-py"
_PARQUET = ("cifar10-train.parquet", "cifar10-test.parquet")


@DATASETS.register("cifar10")
class Cifar10(Dataset):
    """CIFAR-10: 60,000 colour photographs of 32 by 32 pixels in 10 classes; from a folder.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". Two forms are
    read: `cifar-10-batches-py` as published (through a reader that runs nothing of the pickle), and
    `cifar10-train.parquet` with `cifar10-test.parquet` (needs `hwnas[parquet]`).

    The valid split is taken out of the published training images; the test split is the published
    one. A limit takes a class-balanced choice that depends on the seed alone, and a smaller
    choice is contained in a larger one.
    """

    class Config(Dataset.Config):
        """Settings of CIFAR-10."""

        folder: Path | None = Field(
            None,
            description="Folder with the data. Unset: $HWNAS_DATA, ./data, then ../shared/data.",
        )
        train_images: int | None = Field(
            None, ge=10, le=49_990, description="Images to fit weights on; unset: all that remain."
        )
        valid_images: int = Field(
            5_000, ge=10, le=49_990, description="Images that compare architectures."
        )
        test_images: int | None = Field(
            None, ge=10, le=10_000, description="Images for the final figure; unset: all 10,000."
        )
        augment: CifarAugmentConfig = Field(
            CifarAugmentConfig(),
            description="Random changes to training images; crop 4 and flip by default.",
        )

    name = "cifar10"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`(3, 32, 32)`."""
        return (3, 32, 32)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The published names, by label."""
        return _NAMES

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of all 50,000 training images, whatever the limits.

        Recomputed from the data to four digits; the often copied deviations (.2023, .1994, .2010)
        are averages of single images' deviations.
        """
        return (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

    def _read_search(self) -> tuple[Split, Split]:
        config = self.config
        labels, read = self._open("train")
        remaining = max(len(labels) - config.valid_images, 0)
        counts = [config.valid_images, config.train_images or remaining]
        valid, train = stratified(labels, counts, config.seed, source="cifar10")
        # One reading for both: opening the file costs more than decoding a few images.
        images = read(np.concatenate([train, valid]))
        return (
            checked(Split(images[: len(train)], labels[train]), 10, "cifar10 train"),
            checked(Split(images[len(train) :], labels[valid]), 10, "cifar10 valid"),
        )

    def _read_test(self) -> Split:
        labels, read = self._open("test")
        count = self.config.test_images or len(labels)
        (rows,) = stratified(labels, [count], self.config.seed, source="cifar10 test")
        return checked(Split(read(rows), labels[rows]), 10, "cifar10 test")

    def _open(self, part: str) -> tuple[NDArray[np.int64], Callable[[Indices], NDArray[np.uint8]]]:
        """Return all labels of a published part, and a function that reads the images of rows."""
        folder = self._folder()
        if folder.name != _BATCHES:
            from hwnas.data._cifar_parquet import read_images, read_labels

            path = folder / f"cifar10-{part}.parquet"
            return read_labels(path), lambda rows: read_images(path, rows)

        from hwnas.data._cifar_pickle import read_batch

        files = [f"data_batch_{i}" for i in range(1, 6)] if part == "train" else ["test_batch"]
        parts = [read_batch(folder / file) for file in files]
        images = np.concatenate([each for each, _ in parts])
        return np.concatenate([each for _, each in parts]), lambda rows: images[rows]

    def _folder(self) -> Path:
        """Return the first candidate that holds one of the two forms."""
        candidates = list(dict.fromkeys(self._candidates()))
        for folder in candidates:
            is_published = folder.name == _BATCHES and (folder / "data_batch_1").is_file()
            if is_published or all((folder / name).is_file() for name in _PARQUET):
                return folder
        raise UserInputError(
            "CIFAR-10 was not found. Looked in:" + "".join(f"\n    {each}" for each in candidates),
            f"put the folder {_BATCHES} (from https://www.cs.toronto.edu/~kriz/cifar.html) or "
            f"{' and '.join(_PARQUET)} in one of these, or name its folder: "
            "--set data.folder=FOLDER",
        )

    def _candidates(self) -> Iterator[Path]:
        if self.config.folder is not None:
            roots = [self.config.folder.expanduser()]
        else:
            named = os.environ.get("HWNAS_DATA")
            roots = [Path(named).expanduser()] if named else []
            roots += [Path("data"), Path("../shared/data")]
        for root in (each.resolve() for each in roots):
            yield from (root, root / _BATCHES, root / "cifar10", root / "cifar10" / _BATCHES)
