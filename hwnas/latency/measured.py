"""Measured networks as CSV or Parquet: to calibrate a table, or to see how well it predicts them.

One row a network. Columns: `id` and `ms` (needed); `kernels`, a JSON object that says how often the
network runs each kernel of the table, or `onnx`, an ONNX file in the folder of the table; `space`,
`wall_ms` (default: `ms`), `spread` (default 0), `accepted` (default 1: clean samples).
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.errors import UserInputError
from hwnas.latency.device import Device
from hwnas.latency.kernels import Kernel, fused_kernels
from hwnas.latency.predictor import LatencyPredictor
from hwnas.latency.table import LatencyTable, NetworkEntry, short_id

COLUMNS = ("space", "id", "ms", "wall_ms", "spread", "accepted", "kernels")
SUFFIXES = (".csv", ".parquet")
#: A larger file is not read, and no network has more kernels.
MAX_BYTES, MAX_KERNELS = 64 * 2**20, 100_000
_MOST_MS = 1e7


@dataclass(frozen=True)
class Agreement:
    """How well a table predicted networks before they were entered.

    Attributes:
        compared: Networks whose kernels the table has.
        within_10: Share of them within ±10 %.
        median_ratio: Median of measured / predicted.
    """

    compared: int
    within_10: float
    median_ratio: float


def read_networks(path: Path, device: Device) -> list[NetworkEntry]:
    """Read measured networks.

    Args:
        path: A ``.csv`` or ``.parquet`` file.
        device: Its runtime says which kernels an ONNX file becomes.

    Raises:
        UserInputError: The file is missing or damaged; the row is named.
        DeviceError: The runtime refuses an ONNX file.
    """
    return [_entry(row, i, path, device) for i, row in enumerate(_rows(path), 1)]


def write_networks(path: Path, networks: Sequence[NetworkEntry]) -> None:
    """Write the networks of a table so that `read_networks` reads the same.

    Raises:
        UserInputError: The file cannot be written, or pyarrow is missing.
    """
    rows: list[dict[str, Any]] = [
        {
            "space": each.space, "id": each.id, "ms": each.ms, "wall_ms": each.wall_ms,
            "spread": each.spread, "accepted": each.accepted,
            "kernels": json.dumps(dict(sorted(each.kernels.items()))),
        }
        for each in networks
    ]  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            arrow, parquet = _pyarrow()
            columns = {name: [row[name] for row in rows] for name in COLUMNS}
            parquet.write_table(arrow.table(columns), path)
            return
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise UserInputError(f"cannot write {path}: {error.strerror or error}") from error


def compare(table: LatencyTable, networks: Sequence[NetworkEntry]) -> Agreement | None:
    """Return how well a table predicts networks; None if it has all kernels of none of them."""
    signatures = {short_id(each): each for each in table.entries}
    predictor = LatencyPredictor(table)
    ratios = []
    for each in networks:
        if each.kernels and all(key in signatures for key in each.kernels):
            kernels = [
                Kernel.parse(signatures[key]) for key, n in each.kernels.items() for _ in range(n)
            ]
            ratios.append(each.ms / predictor.predict_kernels(kernels).ms)
    if not ratios:
        return None
    within = np.mean(np.abs(np.array(ratios) - 1) <= 0.1)
    return Agreement(len(ratios), float(within), float(np.median(ratios)))


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserInputError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
        if path.suffix == ".parquet":
            arrow, parquet = _pyarrow()
            try:
                rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
            except arrow.ArrowException as error:
                raise UserInputError(f"{path} is no Parquet file: {error}") from error
        else:
            rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserInputError(f"cannot read {path}: {error}") from error
    if not rows or not {"id", "ms"} <= rows[0].keys():
        raise UserInputError(f"{path} has no rows with the columns id and ms")
    return rows


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserInputError(
            "Parquet files need pyarrow", "pip install 'hwnas[parquet]', or use CSV"
        ) from error
    return pa, pq


def _entry(row: dict[str, Any], number: int, path: Path, device: Device) -> NetworkEntry:
    where = f"{path}, row {number}"
    ms = _number(row, "ms", where, None)
    if ms <= 0:
        raise UserInputError(f"{where}: ms is {ms}, no time")
    kernels = _kernels(row, where, path, device)
    return NetworkEntry(
        str(row.get("space") or ""), str(row["id"]), ms, _number(row, "wall_ms", where, ms),
        _number(row, "spread", where, 0.0), int(_number(row, "accepted", where, 1.0)), kernels,
    )  # fmt: skip


def _number(row: dict[str, Any], name: str, where: str, default: float | None) -> float:
    text = row.get(name)
    if (text is None or text == "") and default is not None:
        return default
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0 <= value <= _MOST_MS:
        raise UserInputError(f"{where}: {name} is {str(text)[:40]!r}")
    return value


def _kernels(row: dict[str, Any], where: str, path: Path, device: Device) -> dict[str, int]:
    text, onnx = row.get("kernels"), row.get("onnx")
    if not text and not onnx:
        raise UserInputError(f"{where} has neither kernels nor onnx")
    if onnx:
        return _kernels_of_file(str(onnx), where, path, device)
    try:
        value = json.loads(str(text))
    except (ValueError, RecursionError):
        value = None
    is_good = isinstance(value, dict) and all(
        re.fullmatch(r"[0-9a-f]{10}", key) and type(n) is int and n > 0 for key, n in value.items()
    )
    if not is_good or not 0 < sum(value.values()) <= MAX_KERNELS:
        raise UserInputError(f"{where}: kernels is no JSON object of counts")
    return dict(value)


def _kernels_of_file(name: str, where: str, path: Path, device: Device) -> dict[str, int]:
    import onnx

    folder = path.parent.resolve()
    file = (folder / name).resolve()
    if not file.is_relative_to(folder) or not file.is_file():
        raise UserInputError(f"{where}: {name} is no file in {folder}")
    try:
        model = onnx.load(str(file))
    except Exception as error:  # protobuf's and onnx's own types have no common base
        raise UserInputError(f"{where}: {name} is not an ONNX file: {error}") from error
    counts = Counter(short_id(each.signature) for each in fused_kernels(model, device.runtime))
    return dict(sorted(counts.items()))
