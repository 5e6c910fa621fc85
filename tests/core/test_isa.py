"""One source, one object per instruction set, chosen when a kernel first runs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hwnas import _core

LEVELS = ("v2", "v3", "v4")
IS_X86 = platform.machine() == "x86_64"


@pytest.mark.skipif(not IS_X86, reason="there is one build on this processor")
@pytest.mark.parametrize("asked", LEVELS)
def test_a_lower_level_can_be_asked_for(asked: str) -> None:
    code = "from hwnas import _core; print(_core.isa())"
    environment = {**os.environ, "HWNAS_ISA": asked}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    best = _core.isa()
    assert done.stdout.strip() == min(asked, best), "never a level that the processor lacks"


@pytest.mark.skipif(not IS_X86, reason="there is one build on this processor")
@pytest.mark.skipif(shutil.which("nm") is None, reason="binutils' nm is not installed")
def test_kernels_share_no_function_between_instruction_sets() -> None:
    """The linker would keep one copy, perhaps with instructions that another processor lacks."""
    root = Path(__file__).parents[2] / "build"
    folders = [f"*/**/hwnas_kernels_{level}.dir/**/*.o" for level in LEVELS]
    objects = [path for folder in folders for path in root.glob(folder)]
    if not objects:
        pytest.skip("no build folder beside the tests")
    for path in objects:
        done = subprocess.run(
            ["nm", "--demangle", "--defined-only", path], capture_output=True, text=True, check=True
        )
        lines = done.stdout.splitlines()
        shared = [each for each in lines if each[17:18] in {"W", "V", "u"} and "DW.ref" not in each]
        assert not shared, f"{path.name}: {shared}"
