"""Any table of architectures and figures as a benchmark of a space."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hwnas.benchmarks.nasbench101.model_spec import ModelSpec
from hwnas.errors import UserInputError, nearest
from hwnas.graph.architecture import Architecture
from hwnas.spaces import SearchSpace
from hwnas.spaces._nasbench101_cell import INPUT, OPS, OUTPUT
from hwnas.spaces.nasbench101 import NasBench101
from hwnas.spaces.nasbench201 import NasBench201, from_arch_str, to_arch_str

Columns = Mapping[str, Sequence[Any]]
#: How a row says which architecture it is of.
KeyKind = Literal["auto", "arch_str", "cell", "architecture", "picks"]
#: How files write that a number is missing.
_MISSING = ("", "na", "nan", "none", "null")


class TableBenchmark:
    """A table that says what architectures score; several rows may be of the same one.

    A row names its architecture in one of these ways (`key`):

    - ``arch_str``: a column of that name in the notation of NAS-Bench-201;
    - ``cell``: columns ``adjacency`` and ``labels``, JSON lists as in EC-NAS (-1 input, -2 output,
      0 conv3x3, 1 conv1x1, 2 maxpool3x3); isomorphic cells are the same architecture;
    - ``architecture``: a column of that name with the picks as a JSON object;
    - ``picks``: a column for each pick, empty where the pick is not asked;
    - ``auto``: the first of these whose columns are there and that the space understands.

    Args:
        space: The space of the architectures.
        columns: The table, column by column.
        key: How a row names its architecture.
        name: What the table is called in messages.

    Raises:
        UserInputError: No such columns, columns of different lengths, or a row that is no
            architecture of the space.
    """

    def __init__(
        self, space: SearchSpace, columns: Columns, *, key: KeyKind = "auto", name: str = "table"
    ) -> None:
        self.space = space
        self.name = name
        self._columns = dict(columns)
        lengths = {len(values) for values in self._columns.values()}
        if len(lengths) != 1:
            raise UserInputError(f"{name}: columns of {sorted(lengths)} rows make no table")
        if lengths == {0}:
            raise UserInputError(f"{name} has no rows")
        self._key = _key_of(space, self._columns, key, name)
        self._rows: dict[str, list[int]] = {}
        self._architectures: dict[str, Architecture] = {}
        for row in range(lengths.pop()):
            self._add(row)

    @classmethod
    def read(cls, path: Path, space: SearchSpace, *, key: KeyKind = "auto") -> TableBenchmark:
        """Read a Parquet file (needs `hwnas[parquet]`) or a CSV file with a header.

        Raises:
            UserInputError: As the class; or the file cannot be read.
        """
        return cls(space, read_columns(path), key=key, name=str(path))

    @classmethod
    def from_frame(
        cls, frame: Any, space: SearchSpace, *, key: KeyKind = "auto", name: str = "table"
    ) -> TableBenchmark:
        """Take a pandas `DataFrame`, or anything else whose ``to_dict("list")`` gives columns.

        Raises:
            UserInputError: As the class.
        """
        return cls(space, frame.to_dict("list"), key=key, name=name)

    def __len__(self) -> int:
        """Return the number of different architectures."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Architecture]:
        """Iterate over the architectures, in the order of their first rows."""
        return iter(self._architectures.values())

    def __contains__(self, architecture: object) -> bool:
        """Tell whether the table has the architecture."""
        return isinstance(architecture, Architecture) and self._key(architecture) in self._rows

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        return tuple(self._columns)

    def values(self, architecture: Architecture, column: str) -> NDArray[np.float64]:
        """Return the entries of a column for an architecture, one a row.

        Raises:
            UserInputError: The table lacks the architecture or the column, or the entries are no
                numbers.
        """
        rows = self._rows.get(self._key(architecture))
        if rows is None:
            raise UserInputError(f"{self.name} has no row for architecture {architecture.id}")
        entries = self._column(column)
        return np.array([_number(entries[row], column, self.name) for row in rows])

    def query(
        self, architecture: Architecture, column: str, rng: random.Random | None = None
    ) -> float:
        """Return the mean over an architecture's rows; with `rng`, a random one of them.

        Entries that are missing do not count; NaN if all are.

        Raises:
            UserInputError: As `values`.
        """
        found = self.values(architecture, column)
        found = found[~np.isnan(found)]
        if not len(found):
            return math.nan
        return float(found.mean() if rng is None else rng.choice(found.tolist()))

    def best(self, column: str, *, largest: bool = True) -> Architecture:
        """Return the architecture with the largest or smallest mean.

        Raises:
            UserInputError: No architecture has a value in that column.
        """
        means = {each: self.query(each, column) for each in self}
        known = {each: mean for each, mean in means.items() if not math.isnan(mean)}
        if not known:
            raise UserInputError(f"{self.name}: column {column!r} is empty")
        return (max if largest else min)(known, key=known.__getitem__)

    def check_column(self, column: str) -> None:
        """Refuse a column that is not there.

        Raises:
            UserInputError: The hint names the nearest ones.
        """
        self._column(column)

    def _column(self, column: str) -> Sequence[Any]:
        if column not in self._columns:
            raise UserInputError(
                f"{self.name} has no column {column!r}", nearest(column, self._columns)
            )
        return self._columns[column]

    def _add(self, row: int) -> None:
        try:
            architecture = self._key.read(row)
            key = self._key(architecture)
        except UserInputError as error:
            raise UserInputError(f"{self.name}, row {row}: {error.message}", error.hint) from error
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise UserInputError(f"{self.name}, row {row} is no architecture ({error})") from error
        self._rows.setdefault(key, []).append(row)
        self._architectures.setdefault(key, architecture)


class _Key:
    """How rows name architectures, and what makes two of them the same.

    Args:
        read: Returns the architecture of a row.
        name: Returns the key of an architecture.
    """

    def __init__(
        self, read: Callable[[int], Architecture], name: Callable[[Architecture], str]
    ) -> None:
        self.read = read
        self._name = name

    def __call__(self, architecture: Architecture) -> str:
        return self._name(architecture)


def _key_of(space: SearchSpace, columns: Columns, kind: KeyKind, name: str) -> _Key:
    if kind in ("auto", "arch_str") and isinstance(space, NasBench201) and "arch_str" in columns:
        return _Key(lambda row: from_arch_str(str(columns["arch_str"][row])), to_arch_str)
    has_cell = "adjacency" in columns and "labels" in columns
    if kind in ("auto", "cell") and isinstance(space, NasBench101) and has_cell:
        return _cell_key(space, columns)
    if kind in ("auto", "architecture") and "architecture" in columns:
        return _architecture_key(space, columns)
    asked = [d.name for d in space.decisions_of(lambda decision: decision.decode(0))]
    missing = [each for each in asked if each not in columns]
    if kind in ("auto", "picks") and not missing:
        return _picks_key(space, columns)
    if kind not in get_args(KeyKind):
        raise UserInputError(f"there is no key {kind!r}", nearest(kind, get_args(KeyKind)))
    hint = "give a column architecture with the picks as JSON, or a column for each pick"
    if len(missing) < len(asked):
        hint = f"columns of picks that are missing: {', '.join(missing)}"
    raise UserInputError(
        f"{name}: no columns name architectures of {type(space).__name__} (key: {kind}); there are "
        f"{', '.join(columns)}",
        hint,
    )


def _architecture_key(space: SearchSpace, columns: Columns) -> _Key:
    """Read picks as JSON, or as a Parquet file's own structures; the space has the last word."""

    def read(row: int) -> Architecture:
        value = _parsed(columns["architecture"][row])
        if isinstance(value, Mapping):  # a structure has all of the table's picks
            value = {name: answer for name, answer in value.items() if answer is not None}
        architecture = Architecture.from_json(value)
        space.graph(architecture)  # refuses one of another space
        return architecture

    return _Key(read, _sorted_json)


def _parsed(entry: Any) -> Any:
    return json.loads(entry) if isinstance(entry, str) else entry


def _cell_key(space: NasBench101, columns: Columns) -> _Key:
    names = {-1: INPUT, -2: OUTPUT, **dict(enumerate(OPS))}
    vertices = space.config.vertices

    def read(row: int) -> Architecture:
        labels = _parsed(columns["labels"][row])
        ops = [names.get(label, str(label)) for label in labels]
        if ops[:1] + ops[-1:] != [INPUT, OUTPUT]:
            raise UserInputError(f"labels {labels} do not start with -1 and end with -2")
        spec = ModelSpec(_parsed(columns["adjacency"][row]), ops)
        return spec.to_architecture(vertices)

    def name(architecture: Architecture) -> str:
        return ModelSpec.from_architecture(space, architecture).hash_spec(OPS)

    return _Key(read, name)


def _picks_key(space: SearchSpace, columns: Columns) -> _Key:
    """Ask the space; each decision takes the option that is written as the row's entry is."""

    def read(row: int) -> Architecture:
        def answer(decision: Any) -> Any:
            entry = columns[decision.name][row]
            for index in range(decision.count):
                option = decision.decode(index)
                if _is_option(entry, option):
                    return option
            raise UserInputError(f"{decision.name}: {entry!r} is not an option")

        return space.realise(answer)[0]

    return _Key(read, _sorted_json)


def _is_option(entry: Any, option: Any) -> bool:
    """Tell whether an entry writes an option: 3 may be 3.0, as columns with gaps have it."""
    if isinstance(option, tuple):
        return str(entry).replace(" ", "") == json.dumps(list(option)).replace(" ", "")
    if isinstance(option, (int, float)) and not isinstance(option, bool):
        try:
            return float(entry) == option
        except (TypeError, ValueError):
            return False
    return entry == option or str(entry) == str(option)


def _sorted_json(architecture: Architecture) -> str:
    return json.dumps(architecture.to_json(), sort_keys=True)


def _number(entry: Any, column: str, name: str) -> float:
    if entry is None or (isinstance(entry, str) and entry.strip().lower() in _MISSING):
        return math.nan
    try:
        return float(entry)
    except (TypeError, ValueError):
        raise UserInputError(f"{name}: column {column!r} holds {entry!r}, no number") from None


def read_columns(path: Path) -> dict[str, list[Any]]:
    """Read all columns of a Parquet or CSV file.

    Raises:
        UserInputError: The file is missing or unusable, or pyarrow is not installed.
    """
    if not path.is_file():
        raise UserInputError(f"there is no file {path}", "give a .csv or a .parquet file")
    try:
        return _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserInputError(
            f"{path} cannot be read as a table ({error})", "give a .csv or a .parquet file"
        ) from error


def _read_csv(path: Path) -> dict[str, list[Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark first
        lines = csv.reader(file)
        header = next(lines, [])
        if len(header) == 1 and any(each in header[0] for each in ";\t"):
            raise ValueError(f"no commas between the columns {header[0]!r}")
        if len(set(header)) != len(header):
            raise ValueError("two columns have the same name")
        rows = []
        for row in lines:
            if row and len(row) != len(header):
                raise ValueError(
                    f"line {lines.line_num} has {len(row)} entries, the header {len(header)}"
                )
            if row:
                rows.append(row)
    if not header:
        raise ValueError("it is empty")
    return {title: [row[i] for row in rows] for i, title in enumerate(header)}


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserInputError(
            "reading Parquet files needs pyarrow, which is not installed",
            "pip install hwnas[parquet]",
        ) from None
    columns: dict[str, list[Any]] = pyarrow.parquet.read_table(path).to_pydict()
    return columns
