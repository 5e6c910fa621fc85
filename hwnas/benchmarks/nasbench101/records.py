"""Reading one cell of the mapped arrays, in as few steps as Python allows.

Memory views and `struct` read single entries several times faster than arrays do.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.benchmarks.nasbench101.store import (
    BUCKET_DIGITS,
    ENTRY,
    METRICS,
    UNPACK,
    Contents,
)

_FOUR = struct.Struct("<4d").unpack_from
_DOUBLE = 8
_ENTRY = ENTRY.itemsize
_WORD = struct.Struct(">I").unpack_from
_SHIFT = 32 - 4 * BUCKET_DIGITS
_HALF = len(METRICS) // 2
_FIXED = ("module_adjacency", "module_operations", "trainable_parameters")


class Records:
    """The cells of a benchmark by hash.

    Args:
        contents: The mapped arrays.
    """

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self._entries = _bytes(contents.entries)
        self._buckets = memoryview(np.asarray(contents.buckets))  # type: ignore[arg-type]
        self._metrics = _bytes(contents.metrics)
        self._repeats = _bytes(contents.repeats)
        first = self._repeats[0]
        self._every = first if (contents.repeats == first).all() else 0  # repeats, if all the same
        self._lengths, self._most = contents.metrics.shape[1:3]
        self._labels = [text.split(",") for text in contents.labels]
        self._matrices = _matrices_of(contents.matrices)

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.contents.entries)

    def hashes(self) -> Iterator[str]:
        """Yield all hashes, in the order of the source."""
        digests = self.contents.entries["hash"]
        for index in self.contents.source_order:
            yield digests[index].tobytes().hex()

    def find(self, module_hash: str) -> int:
        """Return the index of a cell.

        Raises:
            KeyError: No cell has that hash.
        """
        try:
            digest = bytes.fromhex(module_hash)
            bucket = _WORD(digest)[0] >> _SHIFT
        except (ValueError, TypeError, struct.error):
            raise KeyError(module_hash) from None
        entries, buckets = self._entries, self._buckets
        for index in range(buckets[bucket], buckets[bucket + 1]):
            at = index * _ENTRY
            if entries[at : at + 16] == digest:
                return index
        raise KeyError(f"the cell {module_hash} is not in the file")

    def cell(self, index: int) -> tuple[NDArray[np.int8], list[str], int]:
        """Return matrix, labels and number of parameters; the caller may change them."""
        parameters, place, labels = UNPACK(self._entries, index * _ENTRY)
        return self._matrices[place].copy(), self._labels[labels][:], parameters

    def fixed(self, index: int) -> dict[str, Any]:
        """Return what does not depend on a training; the caller may change it."""
        return dict(zip(_FIXED, self.cell(index), strict=True))

    def draw(
        self, index: int, length: int, generator: random.Random, *, halfway: bool
    ) -> tuple[float, float, float, float]:
        """Return time and training, validation and test accuracy of one of a cell's repeats.

        It is drawn as `random.randint` does.

        Raises:
            KeyError: The cell was not trained for that length.
        """
        row = index * self._lengths + length
        repeats = self._every or self._repeats[row]
        if not repeats:
            raise KeyError("the file has no training of that length for this cell")
        bits = repeats.bit_length()
        while (found := generator.getrandbits(bits)) >= repeats:
            pass
        at = (row * self._most + found) * len(METRICS) + (0 if halfway else _HALF)
        return _FOUR(self._metrics, at * _DOUBLE)

    def computed(self, index: int) -> dict[int, list[dict[str, float]]]:
        """Return all repeats by epochs."""
        contents = self.contents
        counts: NDArray[np.uint8] = contents.repeats[index]
        metrics = contents.metrics[index]
        return {
            epochs: [
                dict(zip(METRICS, each, strict=True)) for each in metrics[i, : counts[i]].tolist()
            ]
            for i, epochs in enumerate(contents.epochs)
            if counts[i]
        }


def _matrices_of(texts: Sequence[str]) -> list[NDArray[np.int8]]:
    """Return matrices that are written row by row as 0 and 1; those of a size are made at once."""
    sizes: dict[int, list[int]] = {}
    for place, text in enumerate(texts):
        sizes.setdefault(math.isqrt(len(text)), []).append(place)
    found: dict[int, NDArray[np.int8]] = {}
    for count, places in sizes.items():
        digits = np.frombuffer("".join(texts[place] for place in places).encode(), np.int8)
        found.update(zip(places, (digits & 1).reshape(-1, count, count), strict=True))
    return [found[place] for place in range(len(texts))]


def _bytes(values: NDArray[Any]) -> memoryview:
    """Return the bytes of an array; nothing is copied."""
    return memoryview(np.ascontiguousarray(values).view(np.uint8).reshape(-1))  # type: ignore[arg-type]
