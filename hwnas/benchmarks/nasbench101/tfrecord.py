"""The published file: TFRecord rows of JSON that hold a small protobuf message.

A row is ``[hash, epochs, adjacency string, comma-joined labels, base64 of ModelMetrics]``; the
message is that of `nasbench/lib/model_metrics.proto`. Framing and checksums are read by the
compiled core.
"""

from __future__ import annotations

import base64
import json
import mmap
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from hwnas._core import masked_crc32c, tfrecord_spans
from hwnas.errors import UserInputError

#: Epoch, training time, training, validation and test accuracy, in the order of their fields.
Evaluation = tuple[float, float, float, float, float]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: An EvaluationData with exactly its five doubles, as the published file has it: 9 bytes a field.
_PLAIN = struct.Struct("<xdxdxdxdxd")
_PLAIN_TAGS = b"\x09\x11\x19\x21\x29"


class Metrics(NamedTuple):
    """The message `ModelMetrics`.

    Attributes:
        evaluations: At the start, halfway and at the end of the training.
        trainable_parameters: Their number.
        total_time: Seconds of training and evaluation.
    """

    evaluations: list[Evaluation]
    trainable_parameters: int
    total_time: float


@dataclass(frozen=True, slots=True)
class Row:
    """One training of one cell.

    Attributes:
        module_hash: 32 hexadecimal digits.
        epochs: Length of the training.
        adjacency: The matrix's entries as a string of 0 and 1, row by row.
        operations: Labels of the vertices, joined by commas.
        metrics: What was measured.
    """

    module_hash: str
    epochs: int
    adjacency: str
    operations: str
    metrics: Metrics


def read_rows(path: Path) -> Iterator[Row]:
    """Yield all rows of a file.

    Raises:
        UserInputError: The file is missing, empty, cut off, damaged, or of another kind; the
            message says where.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserInputError(
            f"{path} cannot be read: {error.strerror}",
            "give the path of nasbench_only108.tfrecord or nasbench_full.tfrecord",
        ) from error
    with file:
        if not path.stat().st_size:
            raise UserInputError(f"{path} is empty", "get the file again")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield from _parse(path, content)


def _parse(path: Path, content: mmap.mmap) -> Iterator[Row]:
    try:
        spans = tfrecord_spans(content)
    except ValueError as error:
        raise UserInputError(f"{path}: {error}", "get the file again") from error
    for number, (offset, size) in enumerate(spans.tolist()):
        try:
            name, epochs, adjacency, operations, metrics = json.loads(
                content[offset : offset + size]
            )
            yield Row(
                name, epochs, adjacency, operations, decode_metrics(base64.b64decode(metrics))
            )
        except (ValueError, TypeError, IndexError, struct.error) as error:
            raise UserInputError(
                f"{path}: record {number} at byte {offset} is not one of NAS-Bench-101 ({error})"
            ) from error


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a file as it was published; for tests and benchmarks."""
    with path.open("wb") as file:
        for row in rows:
            message = base64.b64encode(encode_metrics(row.metrics)).decode()
            fields = [row.module_hash, row.epochs, row.adjacency, row.operations, message]
            _write_record(file, json.dumps(fields).encode())


def _write_record(file: IO[bytes], data: bytes) -> None:
    length = struct.pack("<Q", len(data))
    head, tail = masked_crc32c(length), masked_crc32c(data)
    file.write(b"".join((length, struct.pack("<I", head), data, struct.pack("<I", tail))))


def decode_metrics(message: bytes) -> Metrics:
    """Read a `ModelMetrics`; fields that are not known are skipped, missing ones are 0.

    Raises:
        ValueError: The message is cut off or has a field of an unknown wire type.
    """
    evaluations: list[Evaluation] = []
    parameters, total_time = 0, 0.0
    for field, value in _fields(message):
        if field == 1 and isinstance(value, bytes):
            evaluations.append(_decode_evaluation(value))
        elif field == 2 and isinstance(value, int):
            parameters = value
        elif field == 3 and isinstance(value, float):
            total_time = value
    return Metrics(evaluations, parameters, total_time)


def encode_metrics(metrics: Metrics) -> bytes:
    """Write a `ModelMetrics`."""
    parts = []
    for each in metrics.evaluations:
        data = b"".join(
            struct.pack("<Bd", field << 3 | _FIXED64, value) for field, value in enumerate(each, 1)
        )
        parts.append(bytes((1 << 3 | _BYTES, len(data))) + data)
    parts.append(bytes((2 << 3 | _VARINT,)) + _encode_varint(metrics.trainable_parameters))
    parts.append(struct.pack("<Bd", 3 << 3 | _FIXED64, metrics.total_time))
    return b"".join(parts)


def _decode_evaluation(message: bytes) -> Evaluation:
    if len(message) == _PLAIN.size and message[::9] == _PLAIN_TAGS:
        found: Evaluation = _PLAIN.unpack(message)
        return found
    values = [0.0] * 5
    for field, value in _fields(message):
        if 1 <= field <= 5 and isinstance(value, float):
            values[field - 1] = value
    return (values[0], values[1], values[2], values[3], values[4])


def _fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Yield number and value of each field of any protobuf message."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _decode_varint(message, at)
        field, wire = tag >> 3, tag & 7
        value: int | float | bytes
        if wire == _VARINT:
            value, at = _decode_varint(message, at)
        elif wire == _FIXED64:
            (value,) = struct.unpack_from("<d", message, at)
            at += 8
        elif wire == _BYTES:
            size, at = _decode_varint(message, at)
            value = message[at : at + size]
            at += size
        elif wire == _FIXED32:
            value = message[at : at + 4]
            at += 4
        else:
            raise ValueError(f"field {field} has the unknown wire type {wire}")
        if at > end:
            raise ValueError(f"field {field} is cut off")
        yield field, value


def _decode_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a number is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def adjacency_text(matrix: Sequence[Sequence[int]]) -> str:
    """Return a matrix in the form of a row."""
    return "".join(str(int(entry)) for row in matrix for entry in row)
