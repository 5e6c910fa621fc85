"""What this machine is and how busy it is; as `hwnas.latency.device` says it."""

from __future__ import annotations

import os
import platform
import re
from typing import Any, Dict

ISA_FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "fphp",
    "asimdhp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


def fingerprint(setup: Dict[str, Any]) -> Dict[str, Any]:
    """Return what this device is, as `hwnas.latency.device.Fingerprint` has it."""
    import onnxruntime

    info, logical = read_text("/proc/cpuinfo"), os.cpu_count() or 1
    ids = (re.findall(r"^%s\s*:\s*(\d+)$" % key, info, re.M) for key in ("physical id", "core id"))
    model = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", info, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info, re.M)
    present = set(flags.group(1).split()) if flags else set()
    return {
        "cpu": model.group(1).strip() if model else platform.processor() or platform.machine(),
        "isa": [flag for flag in ISA_FLAGS if flag in present],
        "physical_cores": len(set(zip(*ids))) or logical,
        "logical_cores": logical,
        "cache_kib": _cache_kib(),
        "machine": platform.machine(),
        "os": platform.system(),
        "runtime": "onnxruntime",
        "runtime_version": str(onnxruntime.__version__),
        "provider": setup["provider"],
        "threads": setup["threads"],
        "precision": "fp32",
    }


def _cache_kib() -> int:
    for index in range(2, 5):
        folder = "/sys/devices/system/cpu/cpu0/cache/index%d" % index
        match = re.match(r"(\d+)K$", read_text(folder + "/size").strip())
        if match and read_text(folder + "/level").strip() == "2":
            return int(match.group(1))
    return 1024


def host_state() -> Dict[str, Any]:
    """Return what may disturb the measurement now."""
    state: Dict[str, Any] = {"python": platform.python_version()}
    if hasattr(os, "getloadavg"):
        state["load_average"] = [round(each, 2) for each in os.getloadavg()]
    match = re.search(r"some avg10=([\d.]+)", read_text("/proc/pressure/cpu"))
    if match:
        state["cpu_pressure_avg10"] = float(match.group(1))
    match = re.search(r"cpu MHz\s*:\s*([\d.]+)", read_text("/proc/cpuinfo"))
    if match:
        state["cpu_mhz"] = float(match.group(1))
    governor = read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    if governor:
        state["governor"] = governor
    return state


def read_text(path: str) -> str:
    """Return a file's text; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
