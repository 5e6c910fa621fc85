"""What GPU kernels compile to: limits, and the tables of docs/kernels.md. No GPU is needed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwnas.kernels import _compile, report
from hwnas.kernels._compile import Row

ROOT = Path(__file__).parents[2]
PTX = """
.visible .entry k(
	.param .u64 .ptr .global .align 1 k_param_0,
	.param .u64 .ptr .global .align 1 k_param_1,
	.param .u32 k_param_2
)
	ld.param.b64 	%rd6, [k_param_1];
	mov.u32 	%r4, %ctaid.x;
	mad.wide.u32 	%rd8, %r4, 4, %rd6;
	ld.global.b32 { %r2 }, [ %rd8 + 0 ];
	ld.param.b64 	%rd5, [k_param_0];
	mul.wide.s32 	%rd9, %r2, 8;
	add.s64 	%rd12, %rd5, %rd9;
	@%p2 ld.global.v4.b32 { %r13, %r14, %r15, %r16 }, [ %rd12 + 0 ];
	add.s64 	%rd13, %rd12, 512;
	@%p2 st.global.v2.b16 [ %rd13 + 0 ], { %rs1, %rs2 };
	cp.async.cg.shared.global [ %r7 + 0 ], [ %rd12 + 0 ], 0x10, %r8;
"""
FINE = Row(
    backend="triton",
    kernel="k",
    family="matrix",
    dtype="bf16",
    arch="sm_80",
    registers=168,
    spill_bytes=0,
    static_shared=0,
    dynamic_shared=163 * 1024,
    widths={"x": (128,), "partial": (32,)},
    instructions={"HMMA": 4},
    bytes_ratio=1.5,
)


def test_accesses_are_told_apart_by_argument() -> None:
    # The row that is read from the table does not make an access to x one to the table.
    assert _compile.pointer_widths(PTX, ["x", "table", "n"]) == {"x": (32, 128), "table": (32,)}


def test_widths_and_tensor_instructions_in_sass() -> None:
    sass = """
        /*00a0*/  LDG.E R0, desc[UR12][R4.64] ;
        /*0380*/  @!P0 LDG.E.128 R8, desc[UR12][R12.64] ;
        /*0390*/  STG.E.U16 desc[UR12][R2.64], R8 ;
        /*0400*/  HMMA.16816.F32.BF16 R4, R8, R10, R4 ;
    """
    assert _compile.global_widths(sass) == {"LDG": (32, 128), "STG": (16,)}
    assert _compile.tensor_instructions(sass) == {"HMMA": 1}


def test_a_kernel_at_every_limit_breaks_none() -> None:
    assert report.violations([FINE]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"registers": 169}, "169 registers, at most 168 for matrix"),
        ({"family": "pool", "registers": 49}, "49 registers, at most 48 for pool"),
        ({"family": "depthwise", "registers": 65}, "65 registers, at most 64 for depthwise"),
        ({"spill_bytes": 8}, "8 bytes of a thread spilled"),
        ({"widths": {"x": (64, 128)}}, "accesses of 64, 128 bits to x"),
        ({"instructions": {}}, "no tensor-core instruction"),
        ({"static_shared": 49153, "dynamic_shared": 0}, "bytes of static shared memory"),
        ({"dynamic_shared": 163 * 1024 + 1}, "bytes of shared memory"),
        ({"bytes_ratio": 1.51}, "1.51 times the bytes"),
    ],
)
def test_every_limit_is_checked(change: dict[str, object], words: str) -> None:
    fields = {name: getattr(FINE, name) for name in Row.__slots__}
    (problem,) = report.violations([Row(**{**fields, **change})])
    assert problem.startswith("triton k, bf16, sm_80: ")
    assert words in problem


def test_only_the_marked_part_of_the_page_is_generated() -> None:
    page = "a\n<!-- generated: triton -->\nold\n<!-- end: triton -->\nb\n"
    once = report.documented(page, "triton", "new\n")
    assert once == "a\n<!-- generated: triton -->\n\nnew\n\n<!-- end: triton -->\nb\n"
    assert report.documented(once, "triton", "new\n") == once
    with pytest.raises(ValueError, match="'cuda'"):
        report.documented(page, "cuda", "new\n")


@pytest.fixture(scope="module")
def compiled() -> tuple[str, str]:
    """What `--check` prints and what it complains about; its process interprets nothing."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "hwnas.kernels.report", "--check"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_kernel_breaks_a_limit(compiled: tuple[str, str]) -> None:
    assert compiled[1] == ""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_page_shows_what_the_command_prints(compiled: tuple[str, str]) -> None:
    import triton

    page = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    if f"Compiled with Triton {triton.__version__};" not in page:
        pytest.skip(f"docs/kernels.md was not made with Triton {triton.__version__}")
    tables = [line for line in compiled[0].splitlines() if line.startswith("|")]
    assert tables
    missing = [line for line in tables if line not in page]
    assert not missing, "run: python -m hwnas.kernels.report --write"
