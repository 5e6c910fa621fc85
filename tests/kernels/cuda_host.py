"""Builds csrc/cuda with the host shim into an extension that runs the kernels on the CPU."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NAME = "_cuda_host"
#: Set for a run under sanitizers, whose runtime must be loaded before Python is (LD_PRELOAD).
SANITIZERS = "HWNAS_SHIM_SANITIZERS"
#: An extension that another test run has built.
BUILT = "HWNAS_SHIM_BUILT"


def sources() -> list[Path]:
    """Every file of the extension that is compiled."""
    csrc = ROOT / "csrc"
    folders = ("cuda/*.cu", "host_shim/*.cpp", "bindings_cuda/*.cpp")
    return sorted(path for each in folders for path in csrc.glob(each))


def build(folder: Path, sanitizers: str = "") -> Path:
    """Compile the extension into `folder`, two files at a time."""
    import pybind11

    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler to build the host shim with")
    flags = [
        "-std=c++17",
        "-fPIC",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Wshadow",
        "-Werror",
    ]
    flags += ["-Wno-unknown-pragmas", "-DHWNAS_HOST_SHIM", f"-DHWNAS_CUDA_MODULE={NAME}"]
    flags += [f"-I{ROOT / 'csrc'}", f"-isystem{pybind11.get_include()}"]
    flags += [f"-isystem{sysconfig.get_paths()['include']}"]
    flags += (
        ["-O1", "-g1", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
        if sanitizers
        else ["-O2"]
    )
    objects = []
    commands = []
    for path in sources():
        target = folder / f"{path.name}.o"
        objects.append(str(target))
        commands.append([compiler, *flags, "-x", "c++", "-c", str(path), "-o", str(target)])
    _run_all(commands)
    library = folder / f"{NAME}{sysconfig.get_config_var('EXT_SUFFIX')}"
    link = [compiler, "-shared", *objects, "-o", str(library)]
    _run_all([[*link, f"-fsanitize={sanitizers}"] if sanitizers else link])
    return library


def _run_all(commands: list[list[str]], at_once: int = 2) -> None:
    waiting = list(commands)
    running: list[tuple[list[str], subprocess.Popen[str]]] = []
    while waiting or running:
        while waiting and len(running) < at_once:
            command = waiting.pop(0)
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            running.append((command, process))
        command, process = running.pop(0)
        text, _ = process.communicate()
        assert process.returncode == 0, f"{shlex.join(command)}\n{text}"


def load(library: Path) -> Any:
    """Import the extension."""
    spec = importlib.util.spec_from_file_location(NAME, library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
