"""Compile every GPU kernel without a GPU, check what came out, and write it to docs/kernels.md.

A developer's tool: ``python -m hwnas.kernels.report --check`` fails if a kernel breaks a limit,
``--write`` brings the generated parts of docs/kernels.md up to date, and without either the tables
are printed. Triton kernels need Triton, CUDA kernels nvcc; what is missing is left as it is.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.kernels import _compile, _launches
from hwnas.kernels._compile import Row

if TYPE_CHECKING:
    from hwnas.kernels.triton._spec import KernelSpec

#: Registers that a thread may use, by family and architecture.
REGISTERS = {
    "elementwise": {"sm_80": 48, "sm_90": 48},
    "pool": {"sm_80": 48, "sm_90": 48},
    "depthwise": {"sm_80": 64, "sm_90": 96},
    "matrix": {"sm_80": 168, "sm_90": 168},
}
#: Bytes that a kernel of a fused stage may ask for, over the least.
BYTES_RATIO = 1.5
#: Arguments that may be accessed in less than 128 bits whatever their size, and why.
NARROW = {
    "partial": "sums of one program: a vector of channels at a time",
    "index": "one byte for each element of the activations that a thread holds",
}
#: Problems that are known and stand: the beginning of each one's line, and why.
ACCEPTED = {
    "mixed_op, 7 branches of DARTS": (
        "each branch runs its own stages (two launches forward and two backward for each of six "
        "separable stages, which alone make 24); only a kernel that runs the stages of several "
        "branches in one grid would come below the limit"
    ),
    "triton average pool 3×3, 64×16×32², backward, bf16, sm_90: 8 bytes": (
        "two registers more than the limit of 48 leaves; barriers, tiles of 64 and 256 pixels and "
        "other epilogues did not bring it below"
    ),
}

_ARCHS = ("sm_80", "sm_90", "gfx942")
_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True, slots=True)
class _Task:
    """One compilation, in a form that travels to another process."""

    module: str
    place: int
    dtype: str
    arch: str


def triton_rows(only: str = "", jobs: int = 1) -> list[Row]:
    """Compile the kernels of `hwnas.kernels.triton`.

    Args:
        only: A part of the name of the modules whose kernels are wanted.
        jobs: Number of processes.
    """
    tasks = [
        _Task(module, place, str(dtype).removeprefix("torch."), arch)
        for module, specs in _specs(only)
        for place, spec in enumerate(specs)
        for dtype in spec.dtypes
        for arch in _ARCHS
    ]
    if jobs == 1:
        rows = [_compile_task(task) for task in tasks]
    else:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            rows = list(pool.map(_compile_task, tasks))
    return [row for row in rows if row is not None]


def _specs(only: str = "") -> Iterator[tuple[str, Sequence[KernelSpec]]]:
    package = importlib.import_module("hwnas.kernels.triton")
    for found in pkgutil.iter_modules(package.__path__):
        if only in found.name:
            module = importlib.import_module(f"hwnas.kernels.triton.{found.name}")
            yield found.name, getattr(module, "KERNELS", ())


def _compile_task(task: _Task) -> Row | None:
    import torch

    module = importlib.import_module(f"hwnas.kernels.triton.{task.module}")
    spec: KernelSpec = module.KERNELS[task.place]
    launches = spec.launches(getattr(torch, task.dtype))
    if not launches:
        raise ValueError(f"nothing is launched by the sample of {spec.name!r}")
    try:
        return _compile.compile_launches(spec.name, launches, _NAMES[task.dtype], task.arch)
    except Exception:
        # Of what Triton's compiler raises nothing is documented. AMD is a courtesy.
        if task.arch in _compile.SHARED_LIMIT:
            raise
        return None


def cuda_rows() -> list[Row] | None:
    """Compile the kernels of csrc/cuda, or return None where that is not possible."""
    try:
        module = importlib.import_module("hwnas.kernels._cuda_report")
    except ModuleNotFoundError:
        return None
    rows: list[Row] | None = module.rows()
    return rows


def violations(rows: Iterable[Row]) -> list[str]:
    """Return every limit that a compiled kernel breaks, one line each."""
    return [
        f"{row.backend} {row.kernel}, {row.dtype}, {row.arch}: {problem}"
        for row in rows
        if row.arch in _compile.SHARED_LIMIT
        for problem in _problems(row)
    ]


def _problems(row: Row) -> Iterator[str]:
    allowed = REGISTERS[row.family][row.arch]
    if row.registers > allowed:
        yield f"{row.registers} registers, at most {allowed} for {row.family}"
    if row.spill_bytes:
        yield f"{row.spill_bytes} bytes of a thread spilled to local memory"
    for name, widths in row.widths.items():
        if name not in NARROW and set(widths) != {128}:
            found = ", ".join(map(str, widths))
            yield f"accesses of {found} bits to {name}, 128 wanted"
    if row.family == "matrix" and not row.tensor_core:
        yield "no tensor-core instruction"
    if row.static_shared > _compile.STATIC_SHARED:
        yield f"{row.static_shared} bytes of static shared memory"
    limit = _compile.SHARED_LIMIT[row.arch]
    if row.static_shared + row.dynamic_shared > limit:
        yield f"{row.static_shared + row.dynamic_shared} bytes of shared memory, {limit} exist"
    if row.bytes_ratio is not None and row.bytes_ratio > BYTES_RATIO:
        yield f"asks for {row.bytes_ratio:.2f} times the bytes of its operands"


def kernel_table(rows: Sequence[Row]) -> str:
    """Return the kernels as a Markdown table, the architectures of a kernel in one line."""
    heads = ["kernel", "family", "type", "registers", "spilled, B", "shared, B"]
    heads += ["narrowest access, bit", "tensor cores", "bytes / minimum"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.kernel, row.dtype), []).append(row)
    for (kernel, dtype), own in groups.items():
        nvidia = [row for row in own if row.arch in _compile.SHARED_LIMIT]
        ratios = [row.bytes_ratio for row in own if row.bytes_ratio is not None]
        cells = [
            kernel,
            own[0].family,
            dtype,
            _joined(str(row.registers) for row in own),
            _joined(str(row.spill_bytes) for row in own),
            _joined(str(row.static_shared + row.dynamic_shared) for row in own),
            _joined(_narrowest(row) for row in nvidia),
            _joined(row.tensor_core or "–" for row in nvidia),
            f"{ratios[0]:.2f}" if ratios else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _joined(parts: Iterable[str]) -> str:
    return " / ".join(parts)


def _narrowest(row: Row) -> str:
    found = [min(widths) for name, widths in row.widths.items() if name not in NARROW]
    return str(min(found)) if found else "–"


def launch_table(counts: Iterable[_launches.Count]) -> str:
    """Return launches of each op as a Markdown table."""
    lines = ["| op | forward | backward | limit |", "|---|---|---|---|"]
    for count in counts:
        limit = count.limit_text or "–"
        lines.append(f"| {count.op} | {count.forward} | {count.backward} | {limit} |")
    return "\n".join(lines) + "\n"


def documented(text: str, part: str, body: str) -> str:
    """Return the text of docs/kernels.md with a generated part replaced.

    Raises:
        ValueError: The text has no such part.
    """
    begin, end = f"<!-- generated: {part} -->", f"<!-- end: {part} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(text) is None:
        raise ValueError(f"docs/kernels.md lacks the marks of its generated part {part!r}")
    return pattern.sub(lambda _: f"{begin}\n\n{body}\n{end}", text)


def sorted_out(problems: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the problems that `ACCEPTED` does not know, and those that it does with the reason."""
    new, known = [], []
    for problem in problems:
        reasons = [why for start, why in ACCEPTED.items() if problem.startswith(start)]
        if reasons:
            known.append(f"{problem}: {reasons[0]}")
        else:
            new.append(problem)
    return new, known


def triton_part(
    rows: Sequence[Row], counts: Sequence[_launches.Count], known: Sequence[str]
) -> str:
    """Return the generated part about Triton."""
    import triton

    shortfalls = "".join(f"- {each}.\n" for each in known) or "None.\n"

    return (
        f"Compiled with Triton {triton.__version__}; cells with three figures are for sm_80, "
        f"sm_90 and gfx942 (where it compiles), those with two for sm_80 and sm_90.\n\n"
        f"{kernel_table(rows)}\n{launch_table(counts)}\nKnown shortfalls:\n\n{shortfalls}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m hwnas.kernels.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a limit is broken")
    parser.add_argument("--write", action="store_true", help="update docs/kernels.md")
    parser.add_argument("--only", default="", help="compile modules with this in their name")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    os.environ.pop("TRITON_INTERPRET", None)

    parts: dict[str, str] = {}
    problems: list[str] = []
    if importlib.util.find_spec("triton") is not None:
        rows = triton_rows(options.only, options.jobs)
        counts = [] if options.only else _launches.counts()
        found = violations(rows) + [each for count in counts for each in count.problems]
        problems, known = sorted_out(found)
        parts["triton"] = triton_part(rows, counts, known)
    cuda = None if options.only else cuda_rows()
    if cuda is not None:
        parts["cuda"] = kernel_table(cuda)
        problems += violations(cuda)

    if options.write:
        path = Path(__file__).resolve().parents[1] / "docs" / "kernels.md"
        text = path.read_text(encoding="utf-8")
        for part, body in parts.items():
            text = documented(text, part, body)
        path.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write("\n".join(parts.values()))
    sys.stderr.write("".join(f"{problem}\n" for problem in problems))
    return 1 if options.check and problems else 0


if __name__ == "__main__":
    sys.exit(main())
