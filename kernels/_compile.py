"""Offline compilation of kernels and what their machine code shows; needs Triton, but no GPU.

Triton brings its own ptxas, cuobjdump and nvdisasm: registers, local and static shared memory come
from cuobjdump, dynamic shared memory from Triton's metadata, instructions from nvdisasm. Widths of
accesses to global memory are read off the PTX, where data flow tells which argument of the kernel
an address came from: a narrow load of a table must not hide a narrow load of an image.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from hwnas.kernels.triton._spec import Launch

#: What a kernel mostly does, and so which limits hold for it.
Family = Literal["elementwise", "pool", "depthwise", "matrix"]

#: GPUs that every kernel is compiled for: Triton's backend and architecture.
TARGETS: Mapping[str, tuple[str, Any]] = {
    "sm_80": ("cuda", 80),
    "sm_90": ("cuda", 90),
    "gfx942": ("hip", "gfx942"),
}
#: Bytes of shared memory that one block can have: static, and with opting in.
STATIC_SHARED = 48 * 1024
SHARED_LIMIT: Mapping[str, int] = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}

#: Arguments that point to a convolution's weights.
_WEIGHTS = {"weight", "weight_odd", "depthwise"}


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel, compiled for one architecture and one type of activations.

    Attributes:
        backend: ``"triton"`` or ``"cuda"``.
        kernel: Name, unique together with `backend`, `dtype` and `arch`.
        family: What the kernel mostly does.
        dtype: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        arch: ``"sm_80"``, ``"sm_90"`` or ``"gfx942"``.
        registers: Of one thread.
        spill_bytes: Local memory of one thread, stack included.
        static_shared: Bytes of a block.
        dynamic_shared: Bytes of a block, asked for at launch (so opted in).
        widths: Bits of the accesses to each pointer argument, narrowest first. An argument that may
            be narrow (a table, statistics, a small weight) is left out.
        instructions: How often each tensor-core instruction (``"HMMA"``, ``"HGMMA"``) occurs.
        bytes_ratio: Bytes that the kernel asks for, over those of all its operands, once each;
            None where they were not counted.
    """

    backend: str
    kernel: str
    family: Family
    dtype: str
    arch: str
    registers: int
    spill_bytes: int
    static_shared: int
    dynamic_shared: int
    widths: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    instructions: Mapping[str, int] = field(default_factory=dict)
    bytes_ratio: float | None = None

    @property
    def tensor_core(self) -> str:
        """The tensor-core instruction in use, or an empty string."""
        return " + ".join(sorted(name for name, count in self.instructions.items() if count))


def compile_launches(name: str, launches: Sequence[Launch], dtype: str, arch: str) -> Row:
    """Compile recorded launches of one Triton kernel for an architecture, without a GPU.

    Args:
        name: For the row.
        launches: From `hwnas.kernels.triton._spec.recording`; they differ in data only.
        dtype: Of the activations, for the row.
        arch: One of `TARGETS`.

    Raises:
        RuntimeError: Triton was imported with TRITON_INTERPRET set, so kernels are interpreted.
    """
    launch = launches[0]
    if not hasattr(launch.kernel, "cache_key"):
        raise RuntimeError("kernels are interpreted: unset TRITON_INTERPRET to compile them")
    backend, version = TARGETS[arch]
    compiled = launch.compile(version, backend)
    traffic = [each.traffic for each in launches if each.traffic is not None]
    common: dict[str, Any] = {
        "backend": "triton",
        "kernel": name,
        "family": launch.family,
        "dtype": dtype,
        "arch": arch,
        "dynamic_shared": int(compiled.metadata.shared),
        "bytes_ratio": (
            sum(each.asked for each in traffic) / sum(each.minimum for each in traffic)
            if traffic
            else None
        ),
    }
    if backend == "hip":
        registers, spilled = amd_resources(compiled.asm["amdgcn"])
        return Row(**common, registers=registers, spill_bytes=spilled, static_shared=0)
    resources, sass = inspect_cubin(compiled.asm["cubin"])
    arguments = list(_flat_types(compiled.src.signature.items()))
    large = large_arguments(launch)
    widths = pointer_widths(compiled.asm["ptx"], arguments)
    return Row(
        **common,
        registers=resources["REG"],
        spill_bytes=resources["STACK"] + resources["LOCAL"],
        static_shared=resources["SHARED"],
        widths={each: found for each, found in widths.items() if each in large},
        instructions=tensor_instructions(sass),
    )


def large_arguments(launch: Launch) -> set[str]:
    """Return the arguments whose accesses make up a launch's time: images and their like.

    Statistics, tables and small weights are left out: tensors below a 64th of the largest one; so
    are weights of k×k convolutions, whose neighbours in memory are taps, not channels.
    """
    import torch

    strided = _WEIGHTS if launch.meta.get("K", 1) > 1 else set()
    sizes = {
        name: value.numel() * value.element_size()
        for name, value in _flat(zip(launch.kernel.arg_names, launch.args, strict=False))
        if isinstance(value, torch.Tensor) and name not in strided
    }
    largest = max(sizes.values())
    return {name for name, size in sizes.items() if size * 64 >= largest}


def _flat(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Name the members of tuples as Triton hands them to a kernel, one parameter each."""
    for name, value in pairs:
        if isinstance(value, tuple):
            yield from _flat((f"{name}[{place}]", each) for place, each in enumerate(value))
        else:
            yield name, value


def _flat_types(pairs: Iterable[tuple[str, Any]]) -> Iterator[str]:
    return (name for name, kind in _flat(pairs) if kind != "constexpr")


def inspect_cubin(cubin: bytes) -> tuple[dict[str, int], str]:
    """Return the resources of the only kernel in a cubin, and its SASS.

    Resources are cuobjdump's REG, STACK, SHARED and LOCAL: registers, then bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _tool("cuobjdump", "--dump-resource-usage", str(path))
        sass = _tool("nvdisasm", "-c", str(path))
    found = {name: int(value) for name, value in re.findall(r"(\w+):(\d+)", usage)}
    return {name: found[name] for name in ("REG", "STACK", "SHARED", "LOCAL")}, sass


def _tool(name: str, *arguments: str) -> str:
    from triton.backends import nvidia

    path = Path(next(iter(nvidia.__path__))) / "bin" / name
    return subprocess.run([path, *arguments], check=True, capture_output=True, text=True).stdout


def tensor_instructions(sass: str) -> dict[str, int]:
    """Return how often each tensor-core instruction occurs in SASS."""
    return dict(Counter(re.findall(r"\b(HMMA|HGMMA|IMMA|DMMA)\.", sass)))


def global_widths(sass: str) -> dict[str, tuple[int, ...]]:
    """Return the widths in bits of the global loads and stores in SASS, narrowest first."""
    found: dict[str, set[int]] = {}
    for name, modifiers in re.findall(r"\b(LDG|STG|LDGSTS|RED|ATOMG)((?:\.\w+)*)", sass):
        parts = modifiers.split(".")
        bits = next((int(part) for part in parts if part in {"64", "128"}), 32)
        bits = next((int(part[1:]) for part in parts if part in {"U8", "S8", "U16", "S16"}), bits)
        found.setdefault(name, set()).add(bits)
    return {name: tuple(sorted(widths)) for name, widths in found.items()}


def amd_resources(assembly: str) -> tuple[int, int]:
    """Return a kernel's vector registers and the bytes that a thread spills, of AMD's assembly."""

    def value(key: str) -> int:
        found = re.search(rf"\.{key}:\s*(\d+)", assembly)
        return int(found.group(1)) if found else 0

    return value("vgpr_count"), 4 * (value("vgpr_spill_count") + value("sgpr_spill_count"))


_ACCESS = re.compile(
    r"(?:@!?%p\d+ )?(?P<what>ld|st|atom|red)\.(?:[\w:]+\.)*?global(?P<suffix>(?:[.:]+\w+)*)\s+"
    r"(?P<rest>.*)"
)
_ASYNC = re.compile(r"cp\.async\.\w+\.shared\.global\S*\s+\[[^\]]*\],\s*\[([^\]]*)\],\s*(\w+)")
_REGISTER = re.compile(r"%(?:rd|rs|r|p|f|fd)\d+")
_PARAMETER = re.compile(r"\[\w+_param_(\d+)\]")


def pointer_widths(ptx: str, arguments: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the bits of every access to global memory, by the argument that it goes to.

    Args:
        ptx: Of one kernel.
        arguments: Names of its arguments, constants left out, in order.

    Returns:
        Widths in bits for each argument that is accessed, narrowest first. Data flow is followed
        through every definition of a register and ends at loads, so a row number read from a table
        does not count as an access to the table. A tensor copy of Hopper (cp.async.bulk) counts
        as 128 bits.
    """
    sources: dict[str, set[str]] = {}
    accesses: list[tuple[str, int]] = []
    for line in _statements(ptx):
        access = _access(line)
        if access is not None:
            accesses.append(access)
        else:
            _define(line, sources)
    found: dict[str, set[int]] = {}
    for address, bits in accesses:
        for place in _parameters(address, sources):
            if place < len(arguments):
                found.setdefault(arguments[place], set()).add(bits)
    return {name: tuple(sorted(found[name])) for name in arguments if name in found}


def _statements(ptx: str) -> Iterator[str]:
    for line in ptx.splitlines():
        statement = line.split("//")[0].strip()
        if statement and not statement.startswith((".", "$", "{", "}")):
            yield statement.rstrip(";").strip()


def _access(line: str) -> tuple[str, int] | None:
    """Return the address and the width of a global access, or None for any other statement."""
    copied = _ASYNC.search(line)
    if copied is not None:
        return copied.group(1), 8 * int(copied.group(2), 0)
    if line.startswith("cp.async.bulk.") and "global" in line:
        return line.split("[", 1)[1], 128
    access = _ACCESS.match(line)
    if access is None:
        return None
    suffix = access.group("suffix")
    width = re.search(r"\.[bufs](\d+)$|\.(bf16x2|f16x2|bf16|f16)$", suffix)
    if width is None:
        raise ValueError(f"no width in this access to global memory: {line}")
    named = {"bf16x2": 32, "f16x2": 32, "bf16": 16, "f16": 16}
    bits = int(width.group(1)) if width.group(1) else named[width.group(2)]
    count = re.search(r"\.v(\d)", suffix)
    bits *= int(count.group(1)) if count else 1
    addresses = re.findall(r"\[([^\]]*)\]", access.group("rest"))
    return addresses[0], bits


def _define(line: str, sources: dict[str, set[str]]) -> None:
    """Note what a statement's result is computed from; loads of data end the flow."""
    is_parameter = "ld.param" in line
    if re.match(r"(@!?%p\d+ )?(ld|atom)\.", line) and not is_parameter:
        return
    registers = _REGISTER.findall(re.sub(r"^@!?%p\d+ ", "", line))
    if not registers:
        return
    target, *operands = registers
    known = sources.setdefault(target, set())
    known.update(operands)
    if is_parameter:
        known.update(f"param {place}" for place in _PARAMETER.findall(line))


def _parameters(address: str, sources: Mapping[str, set[str]]) -> set[int]:
    waiting, seen = list(_REGISTER.findall(address)), set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += sources.get(name, ())
    return {int(name.removeprefix("param ")) for name in seen if name.startswith("param ")}
