"""hwnas.kernels: which backend runs, and what happens if it cannot."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from hwnas import kernels
from hwnas.errors import KernelUnavailable, UserInputError

CPU = torch.device("cpu")


def test_the_cpu_kernels_are_the_default_for_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HWNAS_KERNELS", raising=False)
    chosen = kernels.chosen(CPU, torch.float32)
    assert chosen is not None
    assert chosen.name == "cpu"
    assert kernels.chosen(CPU, torch.float64) is None, "float64 runs by the reference"


@pytest.mark.parametrize("empty", [None, ""])
def test_nothing_is_forced_by_default(empty: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HWNAS_KERNELS", raising=False)
    if empty is not None:
        monkeypatch.setenv("HWNAS_KERNELS", empty)
    assert kernels.forced() is None


def test_the_reference_is_always_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWNAS_KERNELS", "reference")
    assert kernels.chosen(CPU, torch.float32) is None
    assert kernels.available()["reference"] == "ready"


@pytest.mark.parametrize("name", ["triton", "cuda"])
def test_a_backend_that_is_forced_and_not_ready_is_an_error_with_the_reason(name: str) -> None:
    """In a process of its own: here, Triton's interpreter may be on."""
    code = """
import torch
from hwnas import kernels
from hwnas.errors import KernelUnavailable
from hwnas.graph import GraphBuilder
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore
g = GraphBuilder((1, 4, 4))
try:
    run(g.finish(g.relu(g.input)), WeightStore(0), torch.zeros(1, 1, 4, 4))
except KernelUnavailable as error:
    print(error.exit_code, error.message)
"""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    environment = {**os.environ, "HWNAS_KERNELS": name, "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"5 cannot run with HWNAS_KERNELS={name}: ")
    assert len(done.stdout.split(": ", 1)[1]) > 10, "the reason is given"


def test_a_mistyped_backend_gets_the_nearest_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWNAS_KERNELS", "tritn")
    with pytest.raises(UserInputError, match="triton"):
        kernels.forced()


def test_use_is_stronger_than_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWNAS_KERNELS", "reference")
    with kernels.use("cpu"):
        assert kernels.forced() == "cpu"
    assert kernels.forced() == "reference"


def test_use_refuses_what_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = kernels.backend_named("cpu")
    monkeypatch.setattr(type(backend), "unavailable", lambda self: "it is Sunday")
    with pytest.raises(KernelUnavailable, match="it is Sunday"), kernels.use("cpu"):
        pass
