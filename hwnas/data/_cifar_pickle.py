"""Reads the pickles of CIFAR-10 without trusting them.

A pickle is a program. This reader lets it call four functions, all defined here, that only record
their arguments; no object of any other type, not even of NumPy, is made. The pixels are then
interpreted here, as unsigned bytes and nothing else.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import UserInputError


class _Array:
    """Stands in for a NumPy array: keeps the state that the pickle hands over."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def pixels(self) -> NDArray[np.uint8]:
        """Return the array, if it is one of unsigned bytes; ValueError otherwise."""
        _, shape, dtype, is_fortran, raw = self.state
        if not isinstance(dtype, _DType) or dtype.code != "u1" or is_fortran is not False:
            raise ValueError("the images are not an array of unsigned bytes in C order")
        if not isinstance(raw, bytes | bytearray) or math.prod(shape) != len(raw):
            raise ValueError("the images do not have the size that they claim")
        return np.frombuffer(raw, np.uint8).reshape(shape)


class _DType:
    """Stands in for a NumPy type: keeps its code, such as ``"u1"``."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment: a byte has none."""


def _new_array(*_: object) -> _Array:
    return _Array()


def _array_from_buffer(raw: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.state = (1, shape, dtype, order != "C", raw)
    return array


def _text_to_bytes(text: str, _: str = "") -> bytes:
    # How Python 3 writes bytes in protocol 2; the encoding is always latin1.
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _text_to_bytes,
} | {
    (f"numpy.{core}.{module}", name): function
    for core in ("core", "_core")
    for module, name, function in (
        ("multiarray", "_reconstruct", _new_array),
        ("numeric", "_frombuffer", _array_from_buffer),
    )
}


class _Refused(pickle.UnpicklingError):
    """The pickle asks for something that a CIFAR-10 file has no use for."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return one of the stand-ins; nothing is ever imported."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"it asks for {module}.{name}") from None


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the dictionary in a CIFAR-10 file, with text as bytes and text keys.

    Args:
        path: One of `data_batch_1` … `test_batch`, `batches.meta`.

    Raises:
        UserInputError: The file is missing, truncated, not such a dictionary, or asks for any
            object beyond what CIFAR-10 needs.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
    except FileNotFoundError:
        raise UserInputError(
            f"{path} is missing", "extract cifar-10-python.tar.gz again, all of it"
        ) from None
    except _Refused as error:
        raise UserInputError(
            f"{path} was refused, because it is not a plain CIFAR-10 file: {error}",
            "do not open this file with other tools: loading a pickle can run any program; "
            "get the original cifar-10-python.tar.gz",
        ) from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise UserInputError(
            f"{path} is damaged ({type(error).__name__}: {error})",
            "extract cifar-10-python.tar.gz again",
        ) from error
    if not isinstance(content, dict):
        raise UserInputError(f"{path} holds no dictionary, so it is not a CIFAR-10 file")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): value
        for key, value in content.items()
    }


def read_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images `[N, 3, 32, 32]` and labels `[N]` of one CIFAR-10 batch file.

    Raises:
        UserInputError: The file is missing, damaged or refused, or its parts do not fit.
    """
    content = read_pickle(path)
    try:
        images = content["data"].pixels().reshape(-1, 3, 32, 32)
        labels = np.asarray(content["labels"], np.int64)
    except (KeyError, AttributeError, TypeError, ValueError, OverflowError) as error:
        raise UserInputError(
            f"{path} is not a CIFAR-10 batch ({type(error).__name__}: {error})",
            "extract cifar-10-python.tar.gz again",
        ) from error
    if labels.shape != (len(images),):
        raise UserInputError(f"{path}: {len(images)} images but labels of shape {labels.shape}")
    return images, labels
