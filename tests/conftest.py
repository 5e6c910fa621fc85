"""What every test may use: a seeded generator, the shared data, and skips that say why."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

# Before numpy or torch is imported: with two workers on two cores, more threads only wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where there is no GPU, Triton interprets its kernels. That is decided when triton is first
# imported, and torch's own modules import it.
if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "hwnas",
    deadline=None,  # the first example of a property pays for imports
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("hwnas")


@pytest.fixture
def rng() -> np.random.Generator:
    """A numpy generator with the same stream in every run, in whatever order tests run."""
    return np.random.default_rng(20261122)


@pytest.fixture
def py_rng() -> random.Random:
    """A standard-library generator with the same stream in every run."""
    return random.Random(20261122)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout, or the one that HWNAS_SHARED_DATA names."""
    named = os.environ.get("HWNAS_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data: {folder} is missing (set HWNAS_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium or Chrome that tests marked `browser` drive."""
    found = _chromium()
    assert found is not None, "pytest_collection_modifyitems skips browser tests without one"
    return found


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def _browser_problem() -> str | None:
    if _chromium() is None:
        return "no Chromium: apt-get install chromium"
    if importlib.util.find_spec("playwright") is None:
        return "no playwright: make dev"
    return None


def _gpu_problem() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no CUDA device that torch can use"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason."""
    for marker, problem in (("gpu", _gpu_problem), ("browser", _browser_problem)):
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = problem() if marked else None
        if reason is not None:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _keep_denormals() -> Iterator[None]:
    """Undo what ONNX Runtime does to the calling thread of every test that measures.

    Its sessions make the processor flush denormals, which changes the numbers of later tests.
    """
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
