"""hwnas.kernels: which backend runs, and what happens if it cannot."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hwnas import kernels
from hwnas.errors import KernelUnavailable, UserInputError


def test_the_reference_is_always_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    for forced in (None, "reference", ""):
        if forced is None:
            monkeypatch.delenv("HWNAS_KERNELS", raising=False)
        else:
            monkeypatch.setenv("HWNAS_KERNELS", forced)
        assert kernels.fused("sep_conv") is None
    assert kernels.available()["reference"] == "ready"


@pytest.mark.parametrize("backend", ["cpu", "triton", "cuda"])
def test_a_backend_that_is_forced_and_not_ready_is_an_error_with_the_reason(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWNAS_KERNELS", backend)
    with pytest.raises(KernelUnavailable, match=kernels.available()[backend]) as caught:
        kernels.fused("sep_conv")
    assert caught.value.exit_code == 5


def test_a_mistyped_backend_gets_the_nearest_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWNAS_KERNELS", "tritn")
    with pytest.raises(UserInputError, match="triton"):
        kernels.fused("sep_conv")


def test_a_run_refuses_a_backend_that_is_not_ready() -> None:
    code = """
import torch
from hwnas.errors import KernelUnavailable
from hwnas.graph import GraphBuilder
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore
g = GraphBuilder((1, 4, 4))
try:
    run(g.finish(g.relu(g.input)), WeightStore(0), torch.zeros(1, 1, 4, 4))
except KernelUnavailable as error:
    print(error.message)
"""
    environment = {**os.environ, "HWNAS_KERNELS": "triton"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "HWNAS_KERNELS=triton" in done.stdout
