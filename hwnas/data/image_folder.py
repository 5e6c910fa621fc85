"""Your own images: one folder for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.data import DATASETS, Dataset, Split
from hwnas.data._splits import checked, divided
from hwnas.errors import UserInputError

_ENDINGS = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_PARTS = ("train", "valid", "test")


@DATASETS.register("image_folder")
class ImageFolder(Dataset):
    """Your own images, `FOLDER/CLASS/*.png` or `FOLDER/train/CLASS/*.png`, resized on reading.

    With `train/`, the folders `valid/` and `test/` are used where they exist; a split without a
    folder is taken out of the training images, stratified. Classes are the names of the folders,
    in alphabetical order. Files that are no images by their ending, and names that start with a
    dot, are left alone.
    """

    class Config(Dataset.Config):
        """Settings of an image folder."""

        folder: Path = Field(description="Folder that holds one folder for each class.")
        size: int = Field(
            32, ge=8, le=1024, description="Height and width in pixels that images get."
        )
        fit: Literal["crop", "stretch"] = Field(
            "crop", description="How an image becomes square: cut its longer side, or squeeze it."
        )
        channels: Literal[1, 3] = Field(3, description="3 for colour, 1 for grey.")
        valid_fraction: float = Field(
            0.2, gt=0, lt=1, description="Share for valid, where there is no folder valid/."
        )
        test_fraction: float = Field(
            0.2, gt=0, lt=1, description="Share for test, where there is no folder test/."
        )

    name = "image_folder"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`(channels, size, size)`."""
        return (self.config.channels, self.config.size, self.config.size)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the class folders, sorted.

        Raises:
            UserInputError: The folder is missing, or has fewer than two class folders.
        """
        folder = self._folder("train") or self._root()
        names = tuple(sorted(each.name for each in _folders(folder)))
        if len(names) < 2:
            raise UserInputError(
                f"{folder} has {len(names)} class folders, but two or more are needed",
                "put the images of each class in a folder of its own: CLASS/image.png",
            )
        return names

    def _read_search(self) -> tuple[Split, Split]:
        parts = self._files()
        return self._decoded(*parts["train"]), self._decoded(*parts["valid"])

    def _read_test(self) -> Split:
        return self._decoded(*self._files()["test"])

    def _root(self) -> Path:
        root = self.config.folder.expanduser()
        if not root.is_dir():
            raise UserInputError(
                f"the image folder {root.resolve()} is missing or no folder",
                "name the folder that holds one folder for each class: --set data.folder=FOLDER",
            )
        return root

    def _folder(self, part: str) -> Path | None:
        """Return the folder of a split; None where the layout has none."""
        root = self._root()
        has_parts = (root / "train").is_dir()
        return root / part if has_parts and (root / part).is_dir() else None

    def _files(self) -> dict[str, tuple[list[Path], NDArray[np.int64]]]:
        """Return the files and labels of each split; reads names only."""
        folders = {part: self._folder(part) for part in _PARTS}
        parts = {part: self._listed(folder) for part, folder in folders.items() if folder}
        pool, labels = parts.get("train") or self._listed(self._root())
        # Test is cut off first, so that it does not depend on the size of valid.
        fractions = {"test": self.config.test_fraction, "valid": self.config.valid_fraction}
        missing = [part for part in fractions if part not in parts]
        chosen = divided(
            labels,
            [fractions[part] for part in missing],
            self.config.seed,
            source=str(self.config.folder),
        )
        for part, rows in zip([*missing, "train"], chosen, strict=True):
            parts[part] = ([pool[row] for row in rows], labels[rows])
        return parts

    def _listed(self, folder: Path) -> tuple[list[Path], NDArray[np.int64]]:
        names = self.class_names
        unknown = sorted({each.name for each in _folders(folder)} - set(names))
        if unknown:
            raise UserInputError(
                f"{folder / unknown[0]}: the training images have no class {unknown[0]!r}",
                f"the classes are {', '.join(names)}",
            )
        files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(names):
            found = sorted(_images(folder / name))
            if not found:
                raise UserInputError(
                    f"{folder / name} has no image",
                    f"add images of this class (endings: {' '.join(sorted(_ENDINGS))})",
                )
            files += found
            labels += [label] * len(found)
        return files, np.asarray(labels, np.int64)

    def _decoded(self, files: list[Path], labels: NDArray[np.int64]) -> Split:
        images = np.empty((len(files), *self.input_shape), np.uint8)
        for index, file in enumerate(files):
            images[index] = self._decode(file)
        return checked(Split(images, labels), self.classes, str(self.config.folder))

    def _decode(self, file: Path) -> NDArray[np.uint8]:
        """Return one image as `[C, H, W]`, turned the way the camera was held."""
        from PIL import Image, ImageOps

        config = self.config
        square = (config.size, config.size)
        try:
            with Image.open(file) as opened:
                upright = ImageOps.exif_transpose(opened)
                image = upright.convert("L" if config.channels == 1 else "RGB")
                if config.fit == "crop":
                    image = ImageOps.fit(image, square, Image.Resampling.BILINEAR)
                else:
                    image = image.resize(square, Image.Resampling.BILINEAR)
        except Exception as error:  # decoders fail in many ways on damaged files
            raise UserInputError(
                f"{file} cannot be read as an image ({error})", "repair or remove the file"
            ) from error
        return np.asarray(image).reshape(*square, config.channels).transpose(2, 0, 1)


def _folders(folder: Path) -> list[Path]:
    return [each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")]


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        each
        for each in folder.iterdir()
        if each.suffix.lower() in _ENDINGS and not each.name.startswith(".")
    ]
