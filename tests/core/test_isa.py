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
from hwnas.errors import UserInputError

LEVELS = ("v2", "v3", "v4")
IS_X86 = platform.machine() == "x86_64"
FLAGS = Path("/proc/cpuinfo")
#: What each level adds (psABI; g++ -march=x86-64-vN -dM -E), as Linux spells it.
FEATURES = {
    "v2": "pni ssse3 sse4_1 sse4_2 popcnt cx16 lahf_lm",
    "v3": "avx avx2 bmi1 bmi2 f16c fma movbe abm xsave",
    "v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
}


def python(code: str, level: str) -> str:
    """What a program prints with HWNAS_ISA=level."""
    environment = {**os.environ, "HWNAS_ISA": level}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(not IS_X86, reason="there is one build on this processor")
@pytest.mark.parametrize("asked", LEVELS)
def test_a_lower_level_can_be_asked_for(asked: str) -> None:
    if asked > _core.best_isa():
        pytest.skip(f"this processor's best is {_core.best_isa()}")
    assert python("from hwnas import _core; print(_core.isa())", asked) == asked


@pytest.mark.skipif(not IS_X86, reason="there is one build on this processor")
@pytest.mark.parametrize("asked", ["avx2", "V3", "plain", "x86-64-v3"])
def test_a_level_that_is_none_is_refused(asked: str) -> None:
    with pytest.raises(UserInputError, match=f"HWNAS_ISA is {asked}, .* v2, v3 or v4\n") as caught:
        _core.choose_isa(asked, "v4")
    assert caught.value.hint == "unset HWNAS_ISA to take the best, v4"


@pytest.mark.skipif(not IS_X86, reason="there is one build on this processor")
def test_a_level_that_the_processor_lacks_is_refused() -> None:
    with pytest.raises(UserInputError, match=r"HWNAS_ISA is v4, .* with v2 or v3\n"):
        _core.choose_isa("v4", "v3")
    with pytest.raises(UserInputError, match=r"HWNAS_ISA is v3, .* with v2\n"):
        _core.choose_isa("v3", "v2")
    with pytest.raises(UserInputError, match="need a processor of level x86-64-v2"):
        _core.choose_isa(None, "plain")
    assert [_core.choose_isa(None, best) for best in LEVELS] == list(LEVELS)
    assert _core.choose_isa("", "v3") == "v3"


def test_a_kernel_says_so_too_and_names_the_way_out() -> None:
    """Not only `isa()`: the error comes from whichever kernel runs first."""
    code = """
from hwnas.errors import UserInputError
from hwnas.kernels.backends import backend_named
import torch
try:
    backend_named("cpu").combine([torch.zeros(1, 4, 2, 2)], [None], None, False)
except UserInputError as error:
    print(error.exit_code, error)
"""
    said = python(code, "v9")
    assert said.startswith("3 HWNAS_ISA is v9, but kernels run on this processor with ")
    assert "Hint: unset HWNAS_ISA" in said


def test_the_doctor_reports_it_as_a_line() -> None:
    code = """
from hwnas.study.doctor import examine
print(*[f"{each.level}: {each.text}" for each in examine() if each.subject == "kernels"])
"""
    said = python(code, "v9")
    assert said.startswith("bad: HWNAS_ISA is v9")
    assert "unset HWNAS_ISA" in said


@pytest.mark.skipif(not IS_X86, reason="there is one build on this processor")
@pytest.mark.skipif(not FLAGS.is_file(), reason="no /proc/cpuinfo")
def test_the_best_level_has_every_feature_that_the_compiler_may_use() -> None:
    """The kernel's list leaves out what the operating system does not save."""
    line = next(each for each in FLAGS.read_text().splitlines() if each.startswith("flags"))
    flags, needed, best = set(line.split()), set[str](), "plain"
    for level, more in FEATURES.items():
        needed |= set(more.split())
        if needed <= flags:
            best = level
    assert _core.best_isa() == best


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
