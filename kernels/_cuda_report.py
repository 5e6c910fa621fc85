"""What nvcc makes of csrc/cuda, in the rows of `hwnas.kernels.report`; needs no GPU."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hwnas.kernels._compile import Family, Row, pointer_widths, tensor_instructions

_ROOT = Path(__file__).resolve().parents[1]
_ARCHS = ("sm_80", "sm_90")
_NAME = re.compile(r"([a-z][a-z_]*_kernel)(?:I(13__nv_bfloat16|6__half|f)Lb([01])E)?")
_TYPES = {"f": "fp32", "6__half": "fp16", "13__nv_bfloat16": "bf16"}
#: csrc/cuda/platform.cuh: no launch asks for more; above 48 KiB it opts in.
_SHARED_LIMIT = 96 * 1024

#: The family of each kernel, and the most dynamic shared memory that it asks for.
KERNELS: Mapping[str, tuple[Family, int]] = {
    "separable_forward_kernel": ("matrix", _SHARED_LIMIT),
    "merge_statistics_kernel": ("elementwise", 4096),
    "separable_backward_matrix_kernel": ("matrix", _SHARED_LIMIT),
    "separable_backward_depthwise_kernel": ("depthwise", _SHARED_LIMIT),
    "combine_kernel": ("elementwise", 6144),
    "combine_backward_kernel": ("elementwise", 40960),
    "sum_parts_kernel": ("elementwise", 2048),
    "accumulate_kernel": ("elementwise", 1792),
    "rnn_node_kernel": ("elementwise", 0),
    "rnn_node_backward_kernel": ("elementwise", 0),
}
#: The parameters (number, offset in it) that are activations; an Upstream starts with two. What
#: `combine` sums comes out of a table of branches, as the norms do, and cannot be told from them.
_IMAGES: Mapping[str, Mapping[tuple[int, int], str]] = {
    "separable_forward_kernel": {(3, 0): "x", (7, 0): "z"},
    "separable_backward_matrix_kernel": {
        (2, 0): "gradient",
        (2, 8): "z",
        (3, 0): "x",
        (7, 0): "dt",
    },
    "separable_backward_depthwise_kernel": {(2, 0): "x", (5, 0): "dx", (10, 0): "dt"},
    "combine_kernel": {(4, 0): "y"},
    "combine_backward_kernel": {(1, 0): "gradient"},
    "accumulate_kernel": {(1, 0): "gradient", (1, 8): "z", (2, 0): "dx"},
    "rnn_node_kernel": {
        (2, 0): "pre",
        (3, 0): "states",
        (4, 0): "gate",
        (5, 0): "node",
        (6, 0): "target",
    },
    "rnn_node_backward_kernel": {
        (2, 0): "d_target",
        (3, 0): "gate",
        (4, 0): "node",
        (5, 0): "states",
        (6, 0): "d_states",
        (7, 0): "d_pre",
    },
}


def rows(archs: Sequence[str] = _ARCHS) -> list[Row] | None:
    """Compile all kernels, or return None where nvcc, Triton's tools or the sources are missing.

    Kernels of ragged channel counts are named ``..._ragged``: their rows are not made of whole
    16-byte packs, so no access can be 128 bits wide, and `widths` is left empty.

    Raises:
        RuntimeError: A kernel does not compile, or not without a warning.
    """
    folder = _ROOT / "csrc" / "cuda"
    nvcc = shutil.which("nvcc")
    if nvcc is None or _tools() is None or not folder.is_dir():
        return None
    return [
        row
        for source in sorted(folder.glob("*.cu"))
        for arch in archs
        for row in _rows_of(nvcc, source, arch)
    ]


def _tools() -> Path | None:
    """The folder of cuobjdump and nvdisasm, which Triton brings along."""
    try:
        from triton.backends import nvidia
    except ImportError:
        return None
    return Path(next(iter(nvidia.__path__))) / "bin"


def _rows_of(nvcc: str, source: Path, arch: str) -> Iterator[Row]:
    tools = _tools()
    assert tools is not None
    with tempfile.TemporaryDirectory() as folder:
        cubin, ptx = Path(folder) / "k.cubin", Path(folder) / f"{source.stem}.ptx"
        command = [nvcc, "-std=c++17", "-O3", f"-arch={arch}", "-Werror=all-warnings"]
        command += [f"-I{_ROOT / 'csrc'}", "--keep", f"--keep-dir={folder}"]
        _run([*command, "-cubin", str(source), "-o", str(cubin)])
        usage = _run([str(tools / "cuobjdump"), "--dump-resource-usage", str(cubin)])
        sass = _run([str(tools / "nvdisasm"), "-c", str(cubin)])
        entries = _ptx_entries(ptx.read_text(encoding="utf-8"))
    bodies = _sass_bodies(sass)
    for symbol, text in re.findall(r"Function (\w+):\s*\n\s*(.*)", usage):
        named = _NAME.search(symbol)
        if named is None:
            continue
        name, kind, wide = named.groups()
        found = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", text)}
        family, shared = KERNELS[name]
        is_ragged = wide == "0"
        yield Row(
            backend="cuda",
            kernel=name.removesuffix("_kernel") + ("_ragged" if is_ragged else ""),
            family=family,
            dtype=_TYPES.get(kind or "f", "fp32"),
            arch=arch,
            registers=found["REG"],
            spill_bytes=found["STACK"] + found["LOCAL"],
            static_shared=found["SHARED"],
            dynamic_shared=shared,
            widths={} if is_ragged else image_widths(name, entries[symbol]),
            instructions=tensor_instructions(bodies[symbol]),
            bytes_ratio=None,
        )


def image_widths(kernel: str, ptx: str) -> dict[str, tuple[int, ...]]:
    """Return the bits of every access to each of a kernel's activations, from its PTX."""
    images = _IMAGES.get(kernel, {})
    names: list[str] = []
    places: dict[tuple[int, int], int] = {}

    def numbered(match: re.Match[str]) -> str:
        key = (int(match.group(2)), int(match.group(3) or 0))
        if key not in places:
            places[key] = len(names)
            names.append(images.get(key, ""))
        return f"[{match.group(1)}_param_{places[key]}]"

    # The address of a parameter that is indexed at run time counts as a load of its beginning.
    text = re.sub(r"mov\.[bu]64 (\s*%rd\d+), (\w+_param_\d+);", r"ld.param.b64 \1, [\2];", ptx)
    text = re.sub(r"\[(\w+)_param_(\d+)(?:\+(\d+))?\]", numbered, text)
    return {name: bits for name, bits in pointer_widths(text, names).items() if name}


def _ptx_entries(ptx: str) -> dict[str, str]:
    pieces = re.split(r"\.entry (\w+)\(", ptx)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def _sass_bodies(sass: str) -> dict[str, str]:
    pieces = re.split(r"\.section\s+\.text\.(\w+)", sass)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
