from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TINY: dict[str, Any] = {
    "name": "tiny",
    "threads": 1,
    "space": {
        "name": "conv_chain",
        "min_depth": 1,
        "max_depth": 2,
        "min_width": 4,
        "max_width": 8,
        "width_step": 4,
        "kernels": [3],
        "halve_after": [0, 1],
    },
    "strategy": "random",
    "search": {
        "epochs": 2,
        "batch_size": 256,
        "controller_steps": 1,
        "controller_samples": 4,
        "valid_batch_size": 64,
        "derive_samples": 4,
        "derive_batches": 1,
    },
    "trackers": [],
    "train": {"picks": ["best", "baseline"], "epochs": 1, "batch_size": 256},
    "latency": {"profile_samples": 8, "profile_rounds": 1, "check_samples": 2},
}


@pytest.fixture
def tiny() -> dict[str, Any]:
    return TINY


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A latency table of this machine for the tiny space."""
    from hwnas.study import Study

    return Study(TINY).profile(tmp_path_factory.mktemp("table") / "table.json").path


@pytest.fixture(autouse=True)
def no_table_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this user has measured must not decide what a test sees."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
