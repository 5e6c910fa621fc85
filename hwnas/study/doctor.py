"""Looks at the machine and the installation: what is here, what is not, and why."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import hwnas
from hwnas.errors import HwnasError

Level = Literal["ok", "info", "missing", "bad"]

_REQUIRED = ("torch", "onnx", "onnxruntime", "numpy", "scikit-learn", "pydantic", "SQLAlchemy")
_OPTIONAL = {
    "openvino": "--device openvino: pip install 'hwnas[openvino]'",
    "pyarrow": "CIFAR-10 in Parquet files: pip install 'hwnas[parquet]'",
    "tensorboard": "curves in TensorBoard: pip install 'hwnas[tensorboard]'",
    "triton": "GPU kernels: pip install 'hwnas[triton]'",
}


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        subject: What was looked at.
        level: ``ok``, ``info``, ``missing`` (optional, not here) or ``bad`` (must be repaired).
        text: What was found; for the last two, why and what to do.
    """

    subject: str
    level: Level
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at everything; a check that fails becomes a finding."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions,
        _extension,
        _kernels,
        _machine,
        _gpu,
        _runtimes,
        _table,
        _extras,
        _disk,
    )
    findings: list[Finding] = []
    for check in checks:
        subject = check.__name__.lstrip("_")
        try:
            findings += check()
        except HwnasError as error:
            findings.append(Finding(subject, "bad", f"{error.message}. {error.hint or ''}".strip()))
        except Exception as error:
            # The doctor's own failure is a finding too, never a reason to hide the others.
            findings.append(Finding(subject, "bad", f"{type(error).__name__}: {error}"))
    return findings


def _versions() -> Iterator[Finding]:
    yield Finding("hwnas", "ok", f"{hwnas.__version__} in {Path(hwnas.__file__).parent}")
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    for name in _REQUIRED:
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "bad", f"not installed; pip install {name}")


def _extension() -> Iterator[Finding]:
    try:
        core = importlib.import_module("hwnas._core")
    except ImportError as error:
        yield Finding("extension", "bad", f"hwnas._core is not built ({error}); run: make dev")
    else:
        yield Finding("extension", "ok", f"hwnas._core in {Path(str(core.__file__)).parent}")


def _kernels() -> Iterator[Finding]:
    """Which fused kernels train here, and why not the others."""
    import torch

    from hwnas import _core, kernels

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = ""
    try:
        used = kernels.chosen(device, torch.float32)
        name = "reference" if used is None else used.name
        text = f"{name}{_forced_by('HWNAS_KERNELS')} for float32 on {device.type}"
        if name == "cpu" and _core.isa() != "plain":
            text += f", instruction set x86-64-{_core.isa()}{_forced_by('HWNAS_ISA')}"
        yield Finding("kernels", "ok", text)
    except HwnasError as error:
        yield Finding("kernels", "bad", f"{error.message}; {error.hint}")
    for each, state in kernels.available().items():
        if each != name:
            is_ready = state == "ready"
            text = "ready, not chosen" if is_ready else state
            yield Finding(f"kernels/{each}", "info" if is_ready else "missing", text)


def _forced_by(variable: str) -> str:
    return f" ({variable})" if os.environ.get(variable) else ""


def _machine() -> Iterator[Finding]:
    from hwnas.study.tables import this_device

    device = this_device()
    facts = device.fingerprint.to_json()
    shown = "  ".join(f"{key}={value}" for key, value in facts.items() if value not in ("", None))
    yield Finding("device", "ok", f"{device.id}")
    yield Finding("fingerprint", "info", shown)
    cores = len(os.sched_getaffinity(0))
    busy = os.getloadavg()[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding(
        "load", "info", f"{busy:.1f} on {cores} cores, {memory:.0f} GiB; measure when it is low"
    )


def _gpu() -> Iterator[Finding]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield Finding("gpu", "missing", "no NVIDIA driver here; everything runs on the CPU")
        return
    query = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        yield Finding("gpu", "missing", f"nvidia-smi failed: {error}")
        return
    for line in done.stdout.strip().splitlines():
        yield Finding("gpu", "ok", line)


def _runtimes() -> Iterator[Finding]:
    import onnxruntime

    providers = ", ".join(onnxruntime.get_available_providers())
    yield Finding("providers", "ok", f"ONNX Runtime {onnxruntime.__version__}: {providers}")
    from hwnas.study.tables import devices

    for each in devices():
        level: Level = "info" if each.device else "missing"
        yield Finding(f"--device {each.name}", level, each.description)


def _table() -> Iterator[Finding]:
    from hwnas.study.tables import table_for_this_device

    found = table_for_this_device()
    if found is None:
        yield Finding(
            "table",
            "missing",
            "no packaged latency table of this machine; a search makes its own, or: hwnas profile",
        )
    else:
        yield Finding("table", "ok", f"{found.name}: {found.description}")


def _extras() -> Iterator[Finding]:
    for name, use in _OPTIONAL.items():
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "missing", use)


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    level: Level = "ok" if free > 1 else "bad"
    yield Finding("disk", level, f"{free:.1f} GiB free in {Path.cwd()}")
