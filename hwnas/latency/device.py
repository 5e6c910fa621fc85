"""What a latency table belongs to: hardware × runtime × provider × threads × precision."""

from __future__ import annotations

import os
import platform
import re
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwnas.errors import DeviceError, TableMismatch, UserInputError
from hwnas.latency.runtimes import RUNTIMES, Runtime
from hwnas.registry import split_reference

#: Instruction sets that decide which kernels a runtime uses; others do not change its speed.
ISA_FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "fphp",
    "asimdhp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that makes a measured time belong to one device and to no other.

    Attributes:
        cpu: Model name of the processor.
        isa: Instruction sets that matter to kernels, in a fixed order.
        physical_cores: Cores.
        logical_cores: Hardware threads.
        cache_kib: Size of the cache that one core has for itself.
        machine: Architecture, such as ``x86_64``.
        os: Operating system.
        runtime: Name of the runtime plug-in.
        runtime_version: Its version.
        provider: The runtime's back end.
        threads: Threads that one inference uses.
        precision: Data type of weights and activations.
    """

    cpu: str
    isa: tuple[str, ...]
    physical_cores: int
    logical_cores: int
    cache_kib: int
    machine: str
    os: str
    runtime: str
    runtime_version: str
    provider: str
    threads: int
    precision: str

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**asdict(self), "isa": list(self.isa)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Fingerprint:
        """Read what `to_json` wrote."""
        return cls(**{**value, "isa": tuple(value["isa"])})

    @property
    def id(self) -> str:
        """A stable, file-name-safe name, such as ``intel-xeon-amx-2c-t1``."""
        cpu = re.sub(r"\((r|tm)\)|cpu|processor|@.*", " ", self.cpu.lower())
        words = re.findall(r"[a-z0-9.]+", cpu) or [self.machine.lower()]
        family = next(
            (tag for tag in ("amx_tile", "avx512f", "avx2", "sve2", "asimd") if tag in self.isa), ""
        )
        parts = [*words, family.split("_")[0], f"{self.physical_cores}c", f"t{self.threads}"]
        if self.precision != "fp32":
            parts.append(self.precision)
        return "-".join(part for part in parts if part)


@dataclass(frozen=True)
class Device:
    """A device: its fingerprint, and the runtime that runs on it.

    Attributes:
        fingerprint: What the device is.
        runtime: The runtime plug-in that optimises and runs networks on it.
        is_here: Whether it is this machine. Elsewhere the runtime says which kernels a network
            becomes, as this machine's copy of it sees it, and nothing can be measured.
    """

    fingerprint: Fingerprint
    runtime: Runtime
    is_here: bool = True

    @classmethod
    def here(cls, runtime: str = "onnxruntime", **settings: Any) -> Device:
        """Return this machine with a runtime.

        Args:
            runtime: Name of the runtime plug-in.
            **settings: Settings of the runtime's `Config`, such as `threads`.

        Raises:
            UserInputError: No runtime has that name, or the machine has fewer threads.
            DeviceError: The runtime is not installed.
        """
        plugin = RUNTIMES.get(runtime)
        engine = plugin(plugin.Config(**settings))
        physical, logical = _cores()
        if engine.config.threads > logical:
            raise UserInputError(
                f"{engine.config.threads} threads on a machine with {logical} hardware threads",
                f"use at most {logical}",
            )
        fingerprint = Fingerprint(
            cpu=_cpu_model(),
            isa=_isa(),
            physical_cores=physical,
            logical_cores=logical,
            cache_kib=_private_cache_kib(),
            machine=platform.machine(),
            os=platform.system(),
            runtime=runtime,
            runtime_version=engine.version(),
            provider=engine.provider,
            threads=engine.config.threads,
            precision=engine.precision,
        )
        return cls(fingerprint, engine)

    @classmethod
    def named(cls, text: str) -> Device:
        """Return this machine with a runtime as the command line names it.

        Args:
            text: ``RUNTIME`` or ``RUNTIME:key=value,…``, such as ``onnxruntime:threads=2``.

        Raises:
            UserInputError: No runtime has that name, or a setting is wrong; the message says which.
            DeviceError: The runtime is not installed, or lacks the provider.
        """
        name, settings = split_reference(text)
        known = RUNTIMES.get(name).Config.model_fields
        try:
            return cls.here(name, **settings)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise UserInputError(
                f"device {text!r}: {key}: {first['msg']}",
                f"settings of {name}: {', '.join(known)}",
            ) from error

    @classmethod
    def elsewhere(cls, fingerprint: Fingerprint) -> Device:
        """Return a device that is not this machine, from the fingerprint in its table.

        Raises:
            UserInputError: No runtime here has that name.
            DeviceError: The runtime is not installed here.
        """
        plugin = RUNTIMES.get(fingerprint.runtime)
        engine = plugin(plugin.Config(threads=fingerprint.threads))
        if engine.version() != fingerprint.runtime_version:
            warnings.warn(
                f"{fingerprint.runtime} is {engine.version()} here and "
                f"{fingerprint.runtime_version} on {fingerprint.id}: it may fuse otherwise there",
                stacklevel=2,
            )
        return cls(fingerprint, engine, is_here=False)

    @property
    def id(self) -> str:
        """The fingerprint's stable name."""
        return self.fingerprint.id

    def require(self, other: Fingerprint, source: str) -> None:
        """Refuse a table that was measured on another device.

        Args:
            other: The fingerprint in the table.
            source: The table's name for the message.

        Raises:
            TableMismatch: Something differs; the message names it.
        """
        differences = compare(other, self.fingerprint)
        if differences:
            raise TableMismatch(
                f"{source} was measured on another device: {'; '.join(differences)}",
                "measure this one with: hwnas profile",
            )


def compare(table: Fingerprint, here: Fingerprint) -> list[str]:
    """Return one phrase for each field in which two fingerprints differ."""
    differences = []
    for field in fields(Fingerprint):
        theirs, ours = getattr(table, field.name), getattr(here, field.name)
        if theirs == ours:
            continue
        if field.name == "isa":
            missing, extra = sorted(set(theirs) - set(ours)), sorted(set(ours) - set(theirs))
            changes = [f"only in the table: {', '.join(missing)}"] if missing else []
            changes += [f"only here: {', '.join(extra)}"] if extra else []
            differences.append(f"isa ({'; '.join(changes)})")
        else:
            differences.append(f"{field.name} is {theirs!r} in the table and {ours!r} here")
    return differences


def host_state() -> dict[str, Any]:
    """Return what may disturb a measurement now: load, pressure, clock. For provenance only."""
    state: dict[str, Any] = {"load_average": [round(each, 2) for each in os.getloadavg()]}
    pressure = _read("/proc/pressure/cpu")
    if match := re.search(r"some avg10=([\d.]+)", pressure):
        state["cpu_pressure_avg10"] = float(match[1])
    if match := re.search(r"cpu MHz\s*:\s*([\d.]+)", _read("/proc/cpuinfo")):
        state["cpu_mhz"] = float(match[1])
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    if governor:
        state["governor"] = governor
    return state


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _cpu_model() -> str:
    match = re.search(
        r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE
    )
    return match[1].strip() if match else platform.processor() or platform.machine()


def _isa() -> tuple[str, ...]:
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    present = set(match[1].split()) if match else set()
    return tuple(flag for flag in ISA_FLAGS if flag in present)


def _private_cache_kib() -> int:
    """Return the size of the second-level cache; 1024 where the system does not say."""
    for index in range(2, 5):
        folder = f"/sys/devices/system/cpu/cpu0/cache/index{index}"
        match = re.fullmatch(r"(\d+)K", _read(f"{folder}/size").strip())
        if match and _read(f"{folder}/level").strip() == "2":
            return int(match[1])
    return 1024


def _cores() -> tuple[int, int]:
    logical = os.cpu_count()
    if not logical:
        raise DeviceError("the operating system does not say how many cores there are")
    info = _read("/proc/cpuinfo")
    pairs = set(
        zip(
            re.findall(r"^physical id\s*:\s*(\d+)$", info, re.MULTILINE),
            re.findall(r"^core id\s*:\s*(\d+)$", info, re.MULTILINE),
            strict=False,
        )
    )
    return len(pairs) or logical, logical
