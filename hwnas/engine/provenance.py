"""What a run must remember to be repeated: versions, code, machine."""

from __future__ import annotations

import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import hwnas

_PACKAGES = ("torch", "numpy", "onnx", "onnxruntime", "safetensors", "pydantic", "SQLAlchemy")


def versions() -> dict[str, str]:
    """Return the versions of Python, hwnas and the packages that influence results."""
    found = {"python": platform.python_version(), "hwnas": hwnas.__version__}
    for name in _PACKAGES:
        try:
            found[name.lower()] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Return commit and dirtiness of the checkout that hwnas runs from; None for an installed one.

    The keys are `commit` (40 hexadecimal digits) and `is_dirty`.
    """
    folder = Path(hwnas.__file__).parent
    # A package in site-packages may lie inside somebody else's checkout: it must be tracked.
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "is_dirty": bool(_git(folder, "status", "--porcelain"))}


def machine() -> dict[str, str]:
    """Return host name and platform."""
    return {"host": socket.gethostname(), "platform": platform.platform()}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
