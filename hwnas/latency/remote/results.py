"""Reads what a device measured and makes its latency table.

Nothing in the file is run, and nothing in it decides where something is written: a result that is
not exactly what a bundle asks for is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwnas.errors import UserInputError
from hwnas.latency.device import ISA_FLAGS, Fingerprint
from hwnas.latency.kernels import Kernel
from hwnas.latency.remote.bundle import FORMAT as BUNDLE_FORMAT
from hwnas.latency.remote.bundle import SCHEMA_VERSION
from hwnas.latency.table import Entry, LatencyTable, NetworkEntry
from hwnas.latency.timing import Protocol

FORMAT = "hwnas-results"
#: A larger file is not read.
MAX_BYTES = 256 * 2**20
MAX_SIGNATURE = 20_000

Model = TypeVar("Model", bound=BaseModel)
Milliseconds = Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x20-\x7e]+$")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**9)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Device(_Strict):
    """A plausible fingerprint. `precision` and `runtime` become part of file names."""

    cpu: Text
    isa: list[Literal[ISA_FLAGS]]  # type: ignore[valid-type]
    physical_cores: int = Field(ge=1, le=4096)
    logical_cores: int = Field(ge=1, le=16384)
    cache_kib: int = Field(ge=1, le=4 * 2**20)
    machine: Text
    os: Text
    runtime: Literal["onnxruntime"]
    runtime_version: Annotated[str, Field(pattern=r"^\d+(\.\w+){1,5}$", max_length=40)]
    provider: Annotated[str, Field(pattern=r"^\w{1,60}$")]
    threads: int = Field(ge=1, le=16384)
    precision: Literal["fp32"]


class _Result(_Strict):
    sha256: Hash
    error: Annotated[str, Field(max_length=2000)] | None = None
    ms: Milliseconds | None = None
    wall_ms: Milliseconds | None = None
    median_ms: Milliseconds | None = None
    spread: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    samples: Count | None = None
    accepted: Count | None = None


class _Results(_Strict):
    format: Literal["hwnas-results"]
    schema_version: Literal[1]
    device: _Device
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")]
    manifest_sha256: Hash
    manifest: str
    protocol: Protocol
    results: list[_Result]
    anchor_clean_us: Milliseconds
    disturbed_share: Share
    host_before: dict[Text, float | Text | list[float]]
    host_after: dict[Text, float | Text | list[float]]


class _Item(BaseModel):
    """What of a manifest's item becomes part of a table."""

    model_config = ConfigDict(extra="ignore", strict=True)

    kind: Literal["anchor", "nothing", "kernel", "network"]
    sha256: Hash
    signature: Annotated[str, Field(max_length=MAX_SIGNATURE)] = ""
    space: Annotated[str, Field(max_length=200)] = ""
    id: Annotated[str, Field(max_length=200)] = ""
    kernels: dict[Annotated[str, Field(pattern=r"^[0-9a-f]{10}$")], Count] = Field(
        default_factory=dict
    )


def is_results(path: Path) -> bool:
    """Tell whether a file says that it is one of results."""
    with path.open("rb") as file:
        return re.search(rb'"format"\s*:\s*"hwnas-results"', file.read(400)) is not None


def read_results(path: Path, manifest: bytes | None = None) -> tuple[LatencyTable, list[str]]:
    """Read results.json and make the table of the device that it was written on.

    Args:
        path: The file.
        manifest: Of the bundle that was sent there: the results must be of exactly this one.
            Without it they are checked against the copy that they carry.

    Returns:
        The table, not saved, and what the user should know of it.

    Raises:
        UserInputError: The file is damaged, was changed, or is of another bundle.
    """
    found = _parse(_Results, _load(path), path)
    text = found.manifest.encode()
    if hashlib.sha256(text).hexdigest() != found.manifest_sha256:
        _refuse(path, "its manifest does not have the hash that it states")
    if manifest is not None and manifest != text:
        _refuse(path, "it was measured with another bundle than the one given")
    sent = _load_text(found.manifest, path)
    if sent.get("format") != BUNDLE_FORMAT or sent.get("schema_version") != SCHEMA_VERSION:
        _refuse(path, f"its bundle is not of schema version {SCHEMA_VERSION}")
    listed = sent.get("items")
    if not isinstance(listed, list) or len(listed) != len(found.results):
        _refuse(path, "it does not have one result for each item of its bundle")
    items = [_parse(_Item, each, path) for each in listed]
    for item, result in zip(items, found.results, strict=True):
        _check_pair(item, result, path)
    device = found.device
    if device.physical_cores > device.logical_cores or device.threads > device.logical_cores:
        _refuse(path, "its device is not plausible: more cores or threads than hardware threads")
    if {"provider": device.provider, "threads": device.threads} != sent.get("runtime"):
        _refuse(path, "provider and threads are not those of its bundle")
    return _table(found, items, sent), _notes(found, items, sent, manifest is not None)


def _table(found: _Results, items: list[_Item], sent: Mapping[str, Any]) -> LatencyTable:
    table = LatencyTable(Fingerprint.from_json(found.device.model_dump()))
    for item, result in zip(items, found.results, strict=True):
        if result.ms is None:
            continue
        assert result.wall_ms is not None
        assert result.spread is not None
        assert result.samples is not None
        assert result.accepted is not None
        ms, wall_ms = round(result.ms, 6), round(result.wall_ms, 6)
        spread = round(result.spread, 4)
        if item.kind == "nothing":
            table.overhead_ms = ms
        elif item.kind == "kernel":
            table.entries[item.signature] = Entry(
                ms, wall_ms, spread, result.samples, result.accepted
            )
        elif item.kind == "network":
            table.networks.append(
                NetworkEntry(
                    item.space, item.id, ms, wall_ms, spread, result.accepted, item.kernels
                )
            )
    space = sent.get("space")
    table.provenance.append(
        {
            **(space if isinstance(space, dict) else {}),
            "date": found.date,
            "hwnas_version": str(sent.get("hwnas_version")),
            "source": "bundle",
            "bundle_sha256": found.manifest_sha256,
            "made_with": sent.get("made_with"),
            "measured_kernels": len(table.entries),
            "measured_networks": len(table.networks),
            "unclean_kernels": sum(each.accepted == 0 for each in table.entries.values()),
            "failed": sum(each.error is not None for each in found.results),
            "protocol": found.protocol.model_dump(),
            "anchor_clean_us": round(found.anchor_clean_us, 3),
            "disturbed_share": round(found.disturbed_share, 3),
            "host_before": found.host_before,
            "host_after": found.host_after,
        }
    )
    return table


def _notes(
    found: _Results, items: list[_Item], sent: Mapping[str, Any], is_verified: bool
) -> list[str]:
    notes = []
    if not is_verified:
        notes.append("checked against its own copy of the manifest only: give --bundle FILE too")
    failed = [(i, r) for i, r in zip(items, found.results, strict=True) if r.error is not None]
    if failed:
        item, result = failed[0]
        notes.append(
            f"{len(failed)} of {len(items)} could not be measured there: unknown. The first: "
            f"{(item.signature or item.id)[:120]}: {(result.error or '')[:200]}"
        )
    missing = sent.get("unmeasurable")
    if isinstance(missing, list) and missing:
        notes.append(f"{len(missing)} kernel(s) cannot be measured alone and are unknown")
    made = sent.get("made_with")
    made = made if isinstance(made, dict) else {}
    if made.get("runtime_version") != found.device.runtime_version:
        notes.append(
            f"ONNX Runtime is {found.device.runtime_version} there and was "
            f"{made.get('runtime_version')} where the kernels were derived: it may fuse otherwise"
        )
    wide = ("avx512f" in found.device.isa) != ("avx512f" in (made.get("isa") or ()))
    if wide or ("avx" in found.device.isa) != ("avx" in (made.get("isa") or ())):
        notes.append("vectors are of another width there: its runtime lays tensors out otherwise")
    return notes


def _check_pair(item: _Item, result: _Result, path: Path) -> None:
    if item.sha256 != result.sha256:
        _refuse(path, "a result is not of the model that its bundle has in its place")
    figures = result.model_dump(exclude={"sha256", "error"})
    if (result.error is None) != all(value is not None for value in figures.values()):
        _refuse(path, "a result has neither all figures nor an error")
    if result.ms is not None and (result.accepted or 0) > (result.samples or 0):
        _refuse(path, "more samples were accepted than taken")
    if item.kind == "nothing" and result.ms is None:
        _refuse(path, f"an empty model did not run there: {(result.error or '')[:200]}")
    if item.kind == "kernel":
        Kernel.parse(item.signature)


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            _refuse(path, f"it is larger than {MAX_BYTES >> 20} MiB")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserInputError(f"cannot read {path}: {error}") from error
    return _load_text(text, path)


def _load_text(text: str, path: Path) -> Any:
    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a number")

    try:
        value = json.loads(text, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"it is no JSON: {error}")
    if not isinstance(value, dict):
        _refuse(path, "it is not a JSON object")
    return value


def _parse(model: type[Model], value: Any, path: Path) -> Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(str(each) for each in first["loc"])[:120]
        _refuse(path, f"{where}: {first['msg']}")


def _refuse(path: Path, why: str) -> NoReturn:
    raise UserInputError(
        f"{path} cannot be imported: {why}", "copy results.json again, or measure again: run.py"
    )
