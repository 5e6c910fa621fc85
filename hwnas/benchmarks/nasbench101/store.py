"""The converted file: arrays that are mapped into memory, so that opening them reads nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.benchmarks.nasbench101.tfrecord import Row, read_rows
from hwnas.errors import UserInputError

FORMAT = 2
#: Metrics of one training: halfway and final, each time and three accuracies.
METRICS = tuple(
    f"{point}_{name}"
    for point in ("halfway", "final")
    for name in ("training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
)
BUCKET_DIGITS = 5  # hexadecimal digits of a hash that choose its bucket


#: One cell: its hash, and what a query needs of it.
ENTRY = np.dtype([("hash", "V16"), ("parameters", "<i8"), ("matrix", "<u4"), ("labels", "<u4")])
#: Reads an entry behind its hash.
UNPACK = struct.Struct("<16xqII").unpack_from


@dataclass(frozen=True)
class Contents:
    """All of a benchmark in arrays, N cells, E lengths of training, at most R repeats.

    Attributes:
        entries: The cells, sorted by hash, `[N]` of `ENTRY`.
        buckets: Where in `entries` the hashes with the same first digits start, `[16^5 + 1]`.
        source_order: Indices into `entries` in the order of the source, `[N]`.
        repeats: How many trainings of each length there are, `[N, E]`.
        metrics: `[N, E, R, 8]` in the order of `METRICS`; NaN where there is no repeat.
        matrices: The different matrices as the source has them: entries row by row, 0 and 1.
        labels: The different labels, joined by commas.
        epochs: Lengths of training, ascending.
    """

    entries: NDArray[np.void]
    buckets: NDArray[np.uint32]
    source_order: NDArray[np.uint32]
    repeats: NDArray[np.uint8]
    metrics: NDArray[np.float64]
    matrices: tuple[str, ...]
    labels: tuple[str, ...]
    epochs: tuple[int, ...]


_ARRAYS = ("entries", "buckets", "source_order", "repeats", "metrics")
_LISTS = ("matrices", "labels", "epochs")


def open_store(source: Path, cache: Path | None = None) -> Contents:
    """Map the converted form of a published file; convert it first if that is not there.

    The source's size and time of change say whether the converted form is still that of the file.

    Args:
        source: The TFRecord file.
        cache: Folder for the converted form; by default one beside the source, or below
            ``~/.cache/hwnas`` where its folder cannot be written to.

    Raises:
        UserInputError: The file is missing or is not one of NAS-Bench-101.
    """
    try:
        stat = source.stat()
    except OSError as error:
        raise UserInputError(
            f"{source} cannot be read: {error.strerror}",
            "give the path of nasbench_only108.tfrecord or nasbench_full.tfrecord",
        ) from error
    stamp = {"format": FORMAT, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    folder = cache or _default_folder(source)
    found = _load(folder, stamp)
    if found is None:
        _save(folder, convert(read_rows(source)), stamp)
        found = _load(folder, stamp)
        if found is None:
            raise UserInputError(f"{folder}: what was just written cannot be read", "remove it")
    return found


def convert(rows: Iterable[Row]) -> Contents:
    """Put all rows into arrays.

    Raises:
        UserInputError: A row does not fit: a matrix of another size than its labels, no evaluation
            at the end, or no rows at all.
    """
    gathered = _Gathered()
    for row in rows:
        gathered.add(row)
    return gathered.contents()


class _Gathered:
    """Rows as they come."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.matrices: dict[str, int] = {}
        self.labels: dict[str, int] = {}
        self.fixed = array("q")  # parameters, index of the matrix, index of the labels
        self.cells, self.epochs, self.values = array("I"), array("I"), array("d")

    def add(self, row: Row) -> None:
        place = self.places.get(row.module_hash)
        if place is None:
            place = self.places[row.module_hash] = len(self.places)
            self._add_cell(row)
        if len(row.metrics.evaluations) < 3:
            raise UserInputError(
                f"the row of {row.module_hash} has {len(row.metrics.evaluations)} evaluations, not "
                "three: at the start, halfway, at the end"
            )
        self.cells.append(place)
        self.epochs.append(row.epochs)
        self.values.extend(row.metrics.evaluations[1][1:])
        self.values.extend(row.metrics.evaluations[2][1:])

    def _add_cell(self, row: Row) -> None:
        count = row.operations.count(",") + 1
        if len(row.adjacency) != count * count or row.adjacency.strip("01"):
            raise UserInputError(
                f"the cell {row.module_hash} has {count} labels and the matrix "
                f"{row.adjacency!r}, not one of {count * count} times 0 or 1"
            )
        self.fixed.append(row.metrics.trainable_parameters)
        self.fixed.append(self.matrices.setdefault(row.adjacency, len(self.matrices)))
        self.fixed.append(self.labels.setdefault(row.operations, len(self.labels)))

    def contents(self) -> Contents:
        if not self.places:
            raise UserInputError("the file has no rows", "get it again")
        digests = np.frombuffer(bytes.fromhex("".join(self.places)), np.uint8).reshape(-1, 16)
        count = len(digests)
        order = np.lexsort(digests.view(">u8").T[::-1])
        entries = np.zeros(count, ENTRY)
        entries["hash"] = digests.view("V16")[order, 0]
        fixed = np.frombuffer(self.fixed, np.int64).reshape(-1, 3)[order]
        for i, name in enumerate(("parameters", "matrix", "labels")):
            entries[name] = fixed[:, i]
        place = np.empty(count, np.uint32)  # of each cell in `entries`
        place[order] = np.arange(count, dtype=np.uint32)
        epochs = np.frombuffer(self.epochs, np.uint32)
        lengths = np.unique(epochs)
        repeats, metrics = _arrange(
            place[np.frombuffer(self.cells, np.uint32)],
            np.searchsorted(lengths, epochs),
            np.frombuffer(self.values, np.float64).reshape(-1, len(METRICS)),
            (count, len(lengths)),
        )
        return Contents(
            entries,
            _buckets(digests[order]),
            place,
            repeats,
            metrics,
            tuple(self.matrices),
            tuple(self.labels),
            tuple(lengths.tolist()),
        )


def _arrange(
    cells: NDArray[Any], lengths: NDArray[Any], values: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return how many repeats `[N, E]` there are, and them `[N, E, R, 8]` in the rows' order."""
    groups = cells.astype(np.int64) * shape[1] + lengths
    counts = np.bincount(groups, minlength=shape[0] * shape[1])
    by_group = np.argsort(groups, kind="stable")
    starts = np.cumsum(counts) - counts
    number = np.empty_like(groups)
    number[by_group] = np.arange(len(groups)) - starts[groups[by_group]]
    most = int(counts.max())
    metrics = np.full((shape[0] * shape[1], most, values.shape[1]), np.nan)
    metrics[groups, number] = values
    if most > 255:
        raise UserInputError(f"a cell was trained {most} times; at most 255 can be kept")
    return counts.reshape(shape).astype(np.uint8), metrics.reshape(*shape, most, -1)


def _buckets(digests: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return where each bucket of first digits starts among sorted digests."""
    first = digests[:, :4].copy().view(">u4")[:, 0].astype(np.uint32) >> (32 - 4 * BUCKET_DIGITS)
    return np.searchsorted(first, np.arange(16**BUCKET_DIGITS + 1)).astype(np.uint32)


def _default_folder(source: Path) -> Path:
    beside = source.with_name(f"{source.name}.hwnas")
    if beside.is_dir() or os.access(source.parent, os.W_OK):
        return beside
    name = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:16]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "hwnas" / "nasbench101" / name


def _load(folder: Path, stamp: dict[str, int]) -> Contents | None:
    """Map a converted form; None if it is missing, cut off, or of another file."""
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        if {key: facts.get(key) for key in stamp} != stamp:
            return None
        found: dict[str, Any] = {
            name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            for name in _ARRAYS
        }
        found.update((name, tuple(facts[name])) for name in _LISTS)
        return Contents(**found)
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _save(folder: Path, contents: Contents, stamp: dict[str, int]) -> None:
    """Write to a folder beside, then rename: a reader sees all of it or nothing.

    Raises:
        UserInputError: The folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        fresh.chmod(0o755)  # others may use it too
    except OSError as error:
        raise UserInputError(
            f"{folder} cannot be written: {error.strerror}", "name another folder with cache=…"
        ) from error
    try:
        for name in _ARRAYS:
            np.save(fresh / f"{name}.npy", getattr(contents, name))
        facts = {**stamp, **{name: getattr(contents, name) for name in _LISTS}}
        (fresh / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        _replace(fresh, folder)
    except OSError as error:
        raise UserInputError(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _replace(fresh: Path, folder: Path) -> None:
    """Put one folder in another's place; whoever has the old one open keeps what it mapped."""
    if folder.exists():
        fresh_old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        try:
            folder.rename(fresh_old / "old")
        except FileNotFoundError:
            pass  # another process has just taken it away
        finally:
            shutil.rmtree(fresh_old, ignore_errors=True)
    fresh.rename(folder)
