"""Run folders that are closed after the test, and a search that takes seconds."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hwnas.engine.run_folder import RunFolder

SCRIPT = Path(__file__).with_name("small_search.py")


@pytest.fixture(scope="session")
def small() -> ModuleType:
    """The module `small_search.py`."""
    spec = importlib.util.spec_from_file_location("small_search", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def script() -> Path:
    """The same as a program."""
    return SCRIPT


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Callable[..., RunFolder]]:
    """Makes or opens run folders by name, and closes them after the test."""
    held: list[RunFolder] = []

    def make(name: str = "run", *, seed: int = 3) -> RunFolder:
        path = tmp_path / name
        for each in held:
            if each.path == path:
                each.close()  # what a kill does
        is_old = (path / "run.json").exists()
        held.append(RunFolder.open(path) if is_old else RunFolder.create(path, {}, seed=seed))
        return held[-1]

    yield make
    for each in held:
        each.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
