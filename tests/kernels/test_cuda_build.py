"""What nvcc makes of the CUDA kernels, and the module on a machine without a GPU."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hwnas.errors import KernelUnavailable
from hwnas.kernels import _cuda_report
from hwnas.kernels._compile import Row
from hwnas.kernels.backend import Window
from hwnas.kernels.backends.cuda import CudaBackend

REGISTERS = {"elementwise": (48, 48), "depthwise": (64, 96), "matrix": (168, 168)}

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
needs_module = pytest.mark.skipif(
    importlib.util.find_spec("hwnas._cuda") is None, reason="hwnas was built without nvcc"
)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    found = _cuda_report.rows()
    if found is None:
        pytest.skip("no nvcc, or no Triton for its disassembler")
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_kernel_compiles_without_warnings_and_keeps_the_limits(rows: list[Row]) -> None:
    names = {row.kernel.removesuffix("_ragged") + "_kernel" for row in rows}
    assert names == set(_cuda_report.KERNELS)
    for row in rows:
        place = f"{row.kernel} {row.dtype} {row.arch}"
        assert row.registers <= REGISTERS[row.family][row.arch == "sm_90"], place
        assert row.spill_bytes == 0, place
        assert row.static_shared <= 48 * 1024, place
        if row.family == "matrix":
            assert row.instructions.get("HMMA"), place
        images = _cuda_report._IMAGES.get(f"{row.kernel}_kernel")
        if images is not None:
            assert row.widths == dict.fromkeys(images.values(), (128,)), place


@pytest.mark.slow
@needs_nvcc
def test_a_warning_is_an_error(tmp_path: Path) -> None:
    """So that the kernels have none: all of them were compiled for the limits."""
    source = tmp_path / "warns.cu"
    source.write_text("__global__ void kernel() { int unused; }\n", encoding="utf-8")
    nvcc = shutil.which("nvcc")
    assert nvcc is not None
    with pytest.raises(RuntimeError, match="unused"):
        list(_cuda_report._rows_of(nvcc, source, "sm_80"))


@needs_module
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_module_can_be_imported_and_says_why_it_cannot_run() -> None:
    code = "import hwnas._cuda as m; print(m.device_problem())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() != "None"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_stage_is_refused_with_the_reason() -> None:
    backend = CudaBackend()
    reason = backend.unavailable()
    assert reason is not None
    x = torch.zeros(1, 4, 4, 4).contiguous(memory_format=torch.channels_last)
    weights = (torch.zeros(4, 1, 3, 3), torch.zeros(4, 4, 1, 1))
    with pytest.raises(KernelUnavailable) as caught:
        backend.separable(x, None, Window(3), *weights, True)
    assert reason in str(caught.value)


def test_other_stages_are_offered_only_with_triton() -> None:
    backend = CudaBackend(object())
    assert all(backend.offers_stage(name) for name in ("separable", "combine", "accumulate", "rnn"))
    assert not any(backend.offers_stage(name) for name in ("conv", "reduction", "pool"))
    with pytest.raises(KernelUnavailable, match="Triton"):
        backend.pool(torch.zeros(1, 1, 1, 1), True, Window(3), False)
