"""Reads CIFAR-10 from Parquet files: one encoded image and one label in each row."""

from __future__ import annotations

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import UserInputError

if TYPE_CHECKING:
    from hwnas.data._splits import Indices


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserInputError(
            "reading Parquet files needs pyarrow, which is not installed",
            "pip install hwnas[parquet]",
        ) from None
    return pyarrow.parquet


def _read_columns(path: Path, columns: list[str]) -> Any:
    parquet = _parquet()
    try:
        return parquet.read_table(path, columns=columns)
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors derive from these
        raise UserInputError(
            f"{path} is not a readable Parquet file with {' and '.join(columns)} ({error})",
            "get the file again",
        ) from error


def read_labels(path: Path) -> NDArray[np.int64]:
    """Return the label of each row, `[N]`.

    Raises:
        UserInputError: pyarrow is missing, or the file is unusable.
    """
    labels = _read_columns(path, ["label"])["label"]
    if labels.null_count:
        raise UserInputError(f"{path}: {labels.null_count} labels are missing")
    values: NDArray[Any] = labels.to_numpy()
    if values.dtype.kind not in "iu":
        raise UserInputError(f"{path}: labels must be whole numbers, not {values.dtype}")
    return values.astype(np.int64)


def read_images(path: Path, rows: Indices) -> NDArray[np.uint8]:
    """Decode the images in `rows` only, `[N, 3, 32, 32]`: decoding all takes many seconds.

    Raises:
        UserInputError: pyarrow is missing, or a row holds no 32 by 32 image.
    """
    encoded: list[bytes] = _read_columns(path, ["image"])["image"].take(rows).to_pylist()
    with ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(_decode, encoded, _names(path, rows))))
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _names(path: Path, rows: Indices) -> Iterable[str]:
    return (f"{path}, row {row}" for row in rows)


def _decode(encoded: bytes, name: str) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # decoders fail in many ways on damaged data
        raise UserInputError(f"{name}: the image cannot be decoded ({error})") from error
    if pixels.shape != (32, 32, 3):
        raise UserInputError(f"{name}: the image is {pixels.shape[1]} by {pixels.shape[0]}, not 32")
    return pixels
