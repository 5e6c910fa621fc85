"""Your own arrays in one .npz file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.data import DATASETS, Dataset, Split
from hwnas.data._splits import checked, divided
from hwnas.errors import UserInputError

_CHANNELS = (1, 3, 4)


@DATASETS.register("npz")
class Npz(Dataset):
    """Your own arrays: `x`, `y` or `x_train`, `y_train`, `x_test`, `y_test` in one .npz file.

    Images are `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]`: whole numbers from 0 to 255, or
    floating point, which is used as it is. Labels are whole numbers from 0. `x_valid` with
    `y_valid`, and `class_names` (an array of text), are used where they exist; a split without
    arrays is taken out of the training images, stratified. Pickled content is refused.
    """

    class Config(Dataset.Config):
        """Settings of an .npz file."""

        file: Path = Field(description="The .npz file.")
        layout: Literal["auto", "nchw", "nhwc"] = Field(
            "auto", description="Where the channels are; auto finds an axis of 1, 3 or 4."
        )
        valid_fraction: float = Field(
            0.2, gt=0, lt=1, description="Share for valid, where there is no x_valid."
        )
        test_fraction: float = Field(
            0.2, gt=0, lt=1, description="Share for test, where there is no x_test."
        )

    name = "npz"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`(C, H, W)` of the training images; reads the file.

        Raises:
            UserInputError: The file is missing or unusable.
        """
        train = self.train
        assert isinstance(train, Split)
        return train.images.shape[1:]

    @property
    def class_names(self) -> tuple[str, ...]:
        """`class_names` of the file, else the labels as text; reads the file.

        Raises:
            UserInputError: The file is missing or unusable.
        """
        return self._class_names(self._arrays())

    def _read_search(self) -> tuple[Split, Split]:
        parts = self._splits()
        return parts["train"], parts["valid"]

    def _read_test(self) -> Split:
        return self._splits()["test"]

    def _splits(self) -> dict[str, Split]:
        arrays = self._arrays()
        classes = len(self._class_names(arrays))
        whole = "train" if "x_train" in arrays else ""
        pool = self._split(arrays, whole, classes)
        fractions = {"test": self.config.test_fraction, "valid": self.config.valid_fraction}
        parts = {
            part: self._split(arrays, part, classes) for part in fractions if f"x_{part}" in arrays
        }
        for part, split in parts.items():
            if split.images.shape[1:] != pool.images.shape[1:]:
                raise UserInputError(
                    f"{self.config.file}: x_{part} has images of {split.images.shape[1:]}, but "
                    f"those to train on are {pool.images.shape[1:]}"
                )
        # Test is cut off first, so that it does not depend on the size of valid.
        missing = [part for part in fractions if part not in parts]
        chosen = divided(
            pool.labels,
            [fractions[part] for part in missing],
            self.config.seed,
            source=str(self.config.file),
        )
        for part, rows in zip([*missing, "train"], chosen, strict=True):
            parts[part] = pool.take(rows)
        return parts

    def _arrays(self) -> dict[str, NDArray[Any]]:
        path = self.config.file.expanduser()
        if not path.is_file():
            raise UserInputError(
                f"the file {path.resolve()} is missing", "name it: --set data.file=FILE.npz"
            )
        try:
            # Opened here: NumPy leaves the file open when the archive is damaged.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                arrays = dict(content)
        except Exception as error:  # damaged archives fail in many ways; .npy has no `with`
            raise UserInputError(
                f"{path} is not a usable .npz file ({error})",
                "write it with numpy.savez_compressed, without arrays of objects",
            ) from error
        if "x" not in arrays and "x_train" not in arrays:
            raise UserInputError(
                f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}",
                "name the arrays x and y, or x_train, y_train, x_test and y_test",
            )
        return arrays

    def _class_names(self, arrays: dict[str, NDArray[Any]]) -> tuple[str, ...]:
        if "class_names" in arrays:
            return tuple(str(name) for name in arrays["class_names"].ravel())
        key = "y_train" if "x_train" in arrays else "y"
        highest = int(self._labels(arrays, key).max(initial=-1))
        return tuple(str(label) for label in range(highest + 1))

    def _labels(self, arrays: dict[str, NDArray[Any]], key: str) -> NDArray[np.int64]:
        source = f"{self.config.file}, {key}"
        if key not in arrays:
            raise UserInputError(f"{source}: the labels are missing")
        labels = arrays[key]
        if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras keeps them
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise UserInputError(
                f"{source}: labels must be whole numbers of shape [N], not {labels.dtype} "
                f"of shape {list(labels.shape)}"
            )
        return labels.astype(np.int64)

    def _split(self, arrays: dict[str, NDArray[Any]], part: str, classes: int) -> Split:
        x, y = (f"{letter}_{part}" if part else letter for letter in "xy")
        source = f"{self.config.file}, {x}"
        labels = self._labels(arrays, y)
        images = _numbers(self._channels_first(arrays[x], source), source)
        if len(images) != len(labels):
            raise UserInputError(f"{source}: {len(images)} images but {len(labels)} labels in {y}")
        if len(images) == 0:
            raise UserInputError(f"{source}: there is no image")
        return checked(Split(images, labels), classes, source)

    def _channels_first(self, images: NDArray[Any], source: str) -> NDArray[Any]:
        if images.ndim == 3:
            return images[:, None]
        if images.ndim != 4 or 0 in images.shape[1:]:
            raise UserInputError(
                f"{source}: images must be [N, H, W], [N, H, W, C] or [N, C, H, W], "
                f"not {list(images.shape)}"
            )
        layout = self.config.layout
        if layout == "auto":
            fitting = list(_fitting(images.shape))
            if len(fitting) != 1:
                raise UserInputError(
                    f"{source}: cannot tell where the channels of {list(images.shape)} are",
                    "say it: --set data.layout=nchw or --set data.layout=nhwc",
                )
            layout = fitting[0]
        return images if layout == "nchw" else images.transpose(0, 3, 1, 2)


def _fitting(shape: tuple[int, ...]) -> Iterator[Literal["nchw", "nhwc"]]:
    if shape[1] in _CHANNELS:
        yield "nchw"
    if shape[3] in _CHANNELS:
        yield "nhwc"


def _numbers(images: NDArray[Any], source: str) -> NDArray[Any]:
    """Return whole numbers as uint8 and the rest as float32."""
    kind = images.dtype.kind
    if kind == "f":
        # A value beyond float32 becomes infinite here, and is reported with its index later.
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(images, np.float32)
    if kind == "b":
        return np.ascontiguousarray(images, np.float32)
    if kind not in "iu":
        raise UserInputError(f"{source}: images must be numbers, not {images.dtype}")
    outside = np.flatnonzero(((images < 0) | (images > 255)).any(axis=(1, 2, 3)))
    if len(outside):
        raise UserInputError(
            f"{source}: image {outside[0]} has whole numbers outside 0 to 255",
            "store such images as float32, scaled as the network should see them",
        )
    return np.ascontiguousarray(images, np.uint8)
