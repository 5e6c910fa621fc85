"""Latency tables: what was measured on one device, with everything needed to judge it.

A table is two JSON files that sit side by side: ``NAME.json`` holds the measurements (checked
against ``latency_tables/schema.json``), ``NAME.contexts.json`` what was learned about how the
runtime fuses, which any machine could work out again. Neither is ever executed or unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from hwnas.errors import TableMismatch, UserInputError
from hwnas.latency.device import Device, Fingerprint
from hwnas.latency.runtimes import RUNTIMES, Runtime
from hwnas.latency.timing import Measurement

SCHEMA_VERSION = 1
#: What `ms` is, by the runtime's clock.
UNITS = {
    "thread": {"ms": "thread CPU time of one run, milliseconds", "wall_ms": "milliseconds"},
    "wall": {
        "ms": "wall time of one run while all its cores were calm, milliseconds",
        "wall_ms": "milliseconds",
    },
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One kernel's measurement, overhead of the call included; fields as in `Measurement`."""

    ms: float
    wall_ms: float
    spread: float
    samples: int
    accepted: int

    @classmethod
    def of(cls, measured: Measurement) -> Entry:
        """Keep of a measurement what is worth storing, rounded to a nanosecond."""
        return cls(
            round(measured.ms, 6),
            round(measured.wall_ms, 6),
            round(measured.spread, 4),
            measured.samples,
            measured.accepted,
        )


@dataclass(frozen=True, slots=True)
class NetworkEntry:
    """One whole network's measurement: what predictions are calibrated with.

    Attributes:
        space: Name of the space it was sampled from; empty for others.
        id: Identifies the network within its space.
        ms: Least clean time of one inference, as in `Measurement`.
        wall_ms: Least wall time.
        spread: As in `Measurement`.
        accepted: Clean samples.
        kernels: How often it runs each kernel, by `short_id`.
    """

    space: str
    id: str
    ms: float
    wall_ms: float
    spread: float
    accepted: int
    kernels: Mapping[str, int]


@dataclass
class LatencyTable:
    """Measurements of one device.

    Attributes:
        fingerprint: The device.
        overhead_ms: What one call of the runtime costs without any work.
        entries: Measurement of each kernel, by signature.
        networks: Whole networks, for calibration.
        provenance: One record for each profiling: date, version, protocol, state of the machine.
        contexts: What a decomposer has learned (`DecomposerState` as plain JSON).
        path: Where it was loaded from or saved to.
    """

    fingerprint: Fingerprint
    overhead_ms: float = 0.0
    entries: dict[str, Entry] = field(default_factory=dict)
    networks: list[NetworkEntry] = field(default_factory=list)
    provenance: list[dict[str, Any]] = field(default_factory=list)
    contexts: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @property
    def is_imported(self) -> bool:
        """Whether it was measured on another machine, by a bundle, and imported here."""
        return any(each.get("source") == "bundle" for each in self.provenance)

    def ms_of(self, signature: str) -> float:
        """Return a kernel's own time: measured, less the overhead of the call; NaN if unknown."""
        entry = self.entries.get(signature)
        return math.nan if entry is None else max(entry.ms - self.overhead_ms, 0.0)

    @property
    def spaces(self) -> list[str]:
        """Names of the spaces whose networks were measured."""
        return sorted({each.space for each in self.networks if each.space})

    def save(self, path: Path | None = None) -> Path:
        """Write both files atomically, in an order that does not depend on history.

        Args:
            path: The file; where the table came from if None.

        Raises:
            UserInputError: The place cannot be written to.
        """
        target = path or self.path
        if target is None:
            raise UserInputError("the latency table has no path yet", "give one to save()")
        _write(_contexts_path(target), _to_lines(self.contexts))
        _write(
            target,
            _to_lines(
                {
                    "schema_version": SCHEMA_VERSION,
                    "device": self.fingerprint.to_json(),
                    "units": units(self.fingerprint),
                    "overhead_ms": self.overhead_ms,
                    "provenance": self.provenance,
                    "networks": [asdict(each) for each in sorted(self.networks, key=_order)],
                    "entries": {k: asdict(v) for k, v in sorted(self.entries.items())},
                }
            ),
        )
        self.path = target
        return target

    @classmethod
    def load(cls, path: str | Path, device: Device | None = None) -> LatencyTable:
        """Read and check a table.

        Args:
            path: The ``.json`` file.
            device: If given, the table must have been measured on it.

        Raises:
            UserInputError: The file is missing, truncated or not a latency table.
            TableMismatch: It has another schema version, or belongs to another device.
        """
        path = Path(path)
        value = _read(path)
        _check(value, path)
        table = cls(
            fingerprint=Fingerprint.from_json(value["device"]),
            overhead_ms=value["overhead_ms"],
            entries={key: Entry(**each) for key, each in value["entries"].items()},
            networks=[NetworkEntry(**each) for each in value["networks"]],
            provenance=value["provenance"],
            path=path,
        )
        if device is not None:
            device.require(table.fingerprint, f"latency table {path}")
        contexts = _contexts_path(path)
        if contexts.exists():
            table.contexts = _read(contexts)
        return table


def units(fingerprint: Fingerprint) -> dict[str, str]:
    """Return what the times of a device's table are; they depend on its runtime's clock."""
    known = fingerprint.runtime in RUNTIMES.names()
    plugin = RUNTIMES.get(fingerprint.runtime) if known else Runtime
    return UNITS[plugin.clock(fingerprint.threads)]


def _order(network: NetworkEntry) -> tuple[str, str]:
    return network.space, network.id


@lru_cache(maxsize=65536)
def short_id(signature: str) -> str:
    """Return ten hexadecimal digits that name a kernel within a table."""
    return hashlib.sha256(signature.encode()).hexdigest()[:10]


def default_path(device: Device, folder: str | Path) -> Path:
    """Return ``FOLDER/<device>/<runtime>.json``; a provider that is not the default is named."""
    name = device.fingerprint.runtime
    if device.fingerprint.provider != device.runtime.default_provider:
        provider = device.fingerprint.provider.removesuffix("ExecutionProvider")
        name += f"-{re.sub(r'[^a-z0-9]+', '-', provider.lower())}"
    return Path(folder) / device.id / f"{name}.json"


def user_folder() -> Path:
    """Return the folder for tables that were measured by this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hwnas" / "latency_tables"


def shipped_tables() -> Iterator[Path]:
    """Yield the tables that come with hwnas."""
    for path in sorted(_shipped_folder().glob("*/*.json")):
        if not path.name.endswith(".contexts.json"):
            yield path


def find_table(device: Device, folders: Sequence[str | Path] = ()) -> LatencyTable | None:
    """Return the table of a device: from the given folders, the user's own, or shipped.

    Tables of other devices are passed over; a damaged file of this device's name is an error.

    Raises:
        UserInputError: The file found is damaged.
    """
    for folder in [*folders, user_folder()]:
        path = default_path(device, folder)
        if path.exists():
            table = LatencyTable.load(path)
            if table.fingerprint == device.fingerprint:
                return table
    for path in shipped_tables():
        if path.parent.name == device.id:
            table = LatencyTable.load(path)
            if table.fingerprint == device.fingerprint:
                return table
    return None


def _shipped_folder() -> Path:
    """Return the folder of tables that are installed with hwnas."""
    # Not `importlib.resources`: in an editable install it answers with two folders at once.
    return Path(str(import_module("hwnas.latency_tables").__file__)).parent


def _contexts_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.contexts.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserInputError(
            f"no latency table at {path}", "measure this device with: hwnas profile"
        ) from None
    except OSError as error:
        raise UserInputError(f"cannot read the latency table {path}: {error.strerror}") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise UserInputError(
            f"the latency table {path} is damaged or truncated: {error}",
            "restore it, or measure again with: hwnas profile",
        ) from error
    if not isinstance(value, dict):
        raise UserInputError(f"{path} is not a latency table: it holds a {type(value).__name__}")
    return value


def _check(value: Mapping[str, Any], path: Path) -> None:
    from jsonschema import Draft202012Validator

    version = value.get("schema_version")
    if version is not None and version != SCHEMA_VERSION:
        raise TableMismatch(
            f"the latency table {path} has schema version {version!r}; this hwnas reads "
            f"{SCHEMA_VERSION}",
            "measure again with: hwnas profile",
        )
    error = next(Draft202012Validator(_schema()).iter_errors(value), None)
    if error is not None:
        where = "/".join(str(each)[:60] for each in error.absolute_path) or "top level"
        raise UserInputError(
            f"the latency table {path} is damaged: {where}: {error.message[:200]}",
            "restore it, or measure again with: hwnas profile",
        )


@lru_cache(maxsize=1)
def _schema() -> dict[str, Any]:
    text = (_shipped_folder() / "schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _to_lines(value: Mapping[str, Any]) -> str:
    """Write JSON with one record a line: small, and a diff shows which records changed."""

    def record(each: Any) -> str:
        return json.dumps(each, sort_keys=True, allow_nan=False, ensure_ascii=False)

    parts = []
    for key, each in value.items():
        if isinstance(each, dict) and each and all(isinstance(v, dict) for v in each.values()):
            rows = ",\n".join(f"  {json.dumps(k)}: {record(v)}" for k, v in each.items())
            parts.append(f'"{key}": {{\n{rows}\n }}')
        elif isinstance(each, list) and each:
            rows = ",\n".join(f"  {record(v)}" for v in each)
            parts.append(f'"{key}": [\n{rows}\n ]')
        else:
            parts.append(f'"{key}": {record(each)}')
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise UserInputError(
            f"cannot write the latency table {path}: {error.strerror or error}",
            "choose another place, or free some space",
        ) from error
