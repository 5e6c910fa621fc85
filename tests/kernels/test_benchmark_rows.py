"""benchmarks/kernels.py: the figures it lists, the object it prints, the gate before it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "kernels.py"
CHEAP = r"^max pool 3x3 \+ BN, 64x64x8x8: vs eager channels_last$"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """The script as a module; its neighbours are found as when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        spec = importlib.util.spec_from_file_location("benchmark_of_kernels", SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


def listed(
    benchmark: ModuleType, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *more: str
) -> list[str]:
    patch.setattr(sys, "argv", [str(SCRIPT), "--list", *more])
    assert benchmark.main() == 0
    return capsys.readouterr().out.splitlines()


def test_every_figure_of_the_goals_is_listed_once(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = listed(benchmark, monkeypatch, capsys)
    goals = dict(line.split("\t") for line in lines)
    assert len(goals) == len(lines)
    assert float(goals["sep_conv 3x3, 64x16x32x32: vs eager channels_last"]) == 3.5
    assert float(goals["mixed op of 7, 64x16x32x32: vs torch.compile"]) == 5
    for part in ("RNN cell", "AVX2", "live activations", "never-seen", "two cores", "RNN supernet"):
        assert any(part in name for name in goals), part


def test_quick_leaves_out_what_compiles_and_what_is_slow(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "\n".join(listed(benchmark, monkeypatch, capsys, "--quick"))
    assert "sep_conv 3x3" in names
    assert "torch.compile" not in names
    assert "supernet step: vs" not in names


def test_a_pattern_that_matches_nothing_is_refused(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        listed(benchmark, monkeypatch, capsys, "--only", "no such row")
    assert "--list" in capsys.readouterr().err


def test_json_is_one_object_with_a_row_a_figure() -> None:
    command = [sys.executable, str(SCRIPT), "--json", "--quick", "--only", CHEAP, "--repeats", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"machine", "rows"}
    assert {"cpu", "isa", "torch", "threads", "kernels", "kernels_isa"} <= set(found["machine"])
    (row,) = found["rows"]
    assert set(row) == {"name", "value", "unit", "goal", "met", "p20", "p50", "p80", "against"}
    assert row["value"] == row["p50"]
    assert row["p20"] <= row["p50"] <= row["p80"]
    assert row["met"] == (row["p50"] >= row["goal"])
    assert "gate: max pool" in done.stderr


def test_the_gate_lets_rounding_pass(benchmark: ModuleType) -> None:
    truth = {"output": torch.linspace(-1, 1, 3001, dtype=torch.float64)}
    rounded = {"output": truth["output"].float()}
    assert sys.modules["_gate"].compare("op", truth, rounded, rounded) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda y: y * 1.02, "differs by"),
        (lambda y: y * (1 + 1e-5), "median error of output is"),
        (lambda y: y * float("nan"), "differs by"),
    ],
)
def test_the_gate_stops_what_is_wrong(benchmark: ModuleType, wrong: object, message: str) -> None:
    truth = {"output": torch.linspace(-1, 1, 3001, dtype=torch.float64)}
    eager = {"output": truth["output"].float()}
    assert callable(wrong)
    (found,) = sys.modules["_gate"].compare("op", truth, eager, {"output": wrong(eager["output"])})
    assert message in found
