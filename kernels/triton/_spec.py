"""How a kernel is launched, and how its launches are looked at without a GPU.

Every launch of this folder goes through `launch`. Within `recording` nothing runs: each launch is
kept as it would have gone to the GPU, so that the very configurations that the stages use can be
compiled offline, and launches and bytes can be counted. Tensors on the meta device will do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.compiler import compile as compile_source
from triton.runtime.jit import create_function_from_signature

if TYPE_CHECKING:
    from torch import Tensor

#: What a kernel spends its time on; each family has its own limit of registers.
Family = Literal["elementwise", "pool", "depthwise", "matrix"]

#: Registers of a thread that the compiler is held to, so that enough warps are resident to hide
#: the memory's latency: unbounded, it loads all branches of a sum before it adds the first.
REGISTERS: dict[Family, int] = {"elementwise": 48, "pool": 48, "depthwise": 64, "matrix": 168}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of one launch.

    Attributes:
        asked: Sum over the programs of the distinct bytes that each reads or writes: the halos of
            tiles count, a second look at what the program's L1 cache holds does not.
        minimum: Every operand once.
    """

    asked: int
    minimum: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch, as it would have gone to the GPU.

    Attributes:
        kernel: The JIT function (an interpreted one under ``TRITON_INTERPRET=1``).
        family: Of the kernel.
        grid: Number of programs.
        args: Positional arguments; tensors by their dtype and alignment only.
        meta: Compile-time arguments.
        num_warps: Warps of a program.
        num_stages: Stages of software pipelining.
        traffic: Bytes, where they were worth counting.
    """

    kernel: Any
    family: Family
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    meta: dict[str, Any]
    num_warps: int
    num_stages: int
    traffic: Traffic | None

    @property
    def name(self) -> str:
        """Name of the kernel."""
        return str(self.kernel.__name__).strip("_")

    def compile(self, capability: int = 90, platform: str = "cuda") -> Any:
        """Compile for a GPU that need not be there.

        Args:
            capability: 80, 90 …, or an AMD architecture's name for the platform ``"hip"``.
            platform: Of the target.

        Returns:
            Triton's compiled kernel, with ``asm`` and ``metadata``.
        """
        target = GPUTarget(platform, capability, 32 if platform == "cuda" else 64)
        backend = make_backend(target)
        binder = create_function_from_signature(self.kernel.signature, self.kernel.params, backend)
        is_cuda = platform == "cuda"
        options = _options(self.family, self.num_warps, self.num_stages, is_cuda)
        given = {**_meta(self.meta, is_cuda), **options}
        bound, specialization, rest = binder(*self.args, **given)
        # As JITFunction.run does it: the public way asks for a driver.
        parsed, signature, constants, attributes = self.kernel._pack_args(
            backend, given, bound, specialization, rest
        )
        source = ASTSource(self.kernel, signature, constants, attributes)
        return compile_source(source, target=target, options=parsed.__dict__)


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """A kernel with the representative launches that its figures are given for.

    Attributes:
        name: What the row of a table is called.
        family: Which limit of registers applies.
        run: Runs a stage that launches the kernel, for a dtype.
        dtypes: The dtypes that it is compiled for.
        kernel: Name of the one kernel meant, or None for all that `run` launches.
    """

    name: str
    family: Family
    run: Callable[[torch.dtype], object]
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    kernel: str | None = None

    def launches(self, dtype: torch.dtype) -> list[Launch]:
        """Return the launches of the kernel, without running them."""
        with recording() as found:
            self.run(dtype)
        return [each for each in found if self.kernel in {None, each.name}]


@dataclass(slots=True)
class _Recorder:
    lists: list[list[Launch]] = field(default_factory=list)


_RECORDER = _Recorder()


@contextlib.contextmanager
def recording() -> Iterator[list[Launch]]:
    """Keep launches in the list that is returned, instead of running them."""
    found: list[Launch] = []
    _RECORDER.lists.append(found)
    try:
        yield found
    finally:
        _RECORDER.lists.pop()


def launch(
    kernel: Any,
    family: Family,
    grid: Sequence[int],
    on: Tensor,
    args: Sequence[Any],
    *,
    num_warps: int = 4,
    num_stages: int = 2,
    traffic: Callable[[], Traffic] | None = None,
    **meta: Any,
) -> None:
    """Launch a kernel on the device and the current stream of a tensor.

    Args:
        kernel: The JIT function.
        family: Of the kernel.
        grid: Number of programs; nothing is launched if one is 0.
        on: A tensor on the device that is to run it.
        args: Positional arguments.
        num_warps: Warps of a program.
        num_stages: Stages of software pipelining.
        traffic: Counts the bytes; only called while recording.
        meta: Compile-time arguments.
    """
    if 0 in grid:
        return
    if _RECORDER.lists:
        count = None if traffic is None else traffic()
        _RECORDER.lists[-1].append(
            Launch(kernel, family, tuple(grid), tuple(args), meta, num_warps, num_stages, count)
        )
        return
    with torch.cuda.device_of(on):
        is_cuda = torch.version.hip is None
        options = _options(family, num_warps, num_stages, is_cuda)
        kernel[tuple(grid)](*args, **_meta(meta, is_cuda), **options)


def _options(family: Family, num_warps: int, num_stages: int, is_cuda: bool) -> dict[str, Any]:
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}
    return {**options, "maxnreg": REGISTERS[family]} if is_cuda else options


def _meta(meta: dict[str, Any], is_cuda: bool) -> dict[str, Any]:
    """Return compile-time arguments; products of float32 are exact where TF32 does not exist."""
    return meta if is_cuda or "PRECISION" not in meta else {**meta, "PRECISION": "ieee"}
