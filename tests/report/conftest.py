"""A synthetic run: every section has data, and any part can be taken away."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from hwnas.engine.trials_db import Trial as StoredTrial
from hwnas.engine.trials_db import TrialsDb, TrialState
from hwnas.graph.architecture import Architecture
from hwnas.objectives.metrics import Metrics
from hwnas.report import results as r
from hwnas.report.run_data import RunData

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
OPS = ("sep_conv_3x3", "sep_conv_5x5", "max_pool_3x3", "avg_pool_3x3", "identity")
BUDGET_MS = 2.0

MakeFolder = Callable[..., Path]
MakeRun = Callable[..., RunData]


def architecture(rng: random.Random) -> Architecture:
    answers: dict[str, Any] = {}
    for cell in ("normal", "reduction"):
        for node in range(4):
            for side in (1, 2):
                answers[f"{cell}/node{node}/input{side}"] = rng.randrange(node + 2)
                answers[f"{cell}/node{node}/op{side}"] = rng.choice(OPS)
    answers["skips"] = tuple(sorted(rng.sample(range(3), rng.randrange(4))))
    return Architecture(answers)


def quality(arch: Architecture) -> tuple[float, float]:
    """Return an accuracy and a latency that follow from the picks."""
    convs = sum(str(each).startswith("sep") for each in arch.values())
    wide = sum(each == "sep_conv_5x5" for each in arch.values())
    return 0.62 + 0.016 * convs + 0.003 * wide, 0.9 + 0.14 * convs + 0.06 * wide


def record(arch: Architecture) -> r.ArchitectureRecord:
    return r.ArchitectureRecord(id=arch.id, answers=arch.to_json())


def predicted(ms: float) -> r.LatencyPrediction:
    return r.LatencyPrediction(ms=ms, low_ms=0.93 * ms, high_ms=1.07 * ms, coverage=0.9)


def network(rng: random.Random) -> r.Drawing:
    """Return a chain of 24 ops with skips, as a whole network is drawn."""
    nodes = [r.DrawnNode(id="0", label="input", kind="input")]
    edges = []
    for index in range(1, 25):
        label = rng.choice(OPS)
        share = rng.random() / 8
        nodes.append(r.DrawnNode(id=str(index), label=label, detail="24×32×32", share=share))
        for source in {index - 1, rng.randrange(max(0, index - 4), index)}:
            edges.append(r.DrawnEdge(source=str(source), target=str(index)))
    return r.Drawing(title="network", nodes=nodes, edges=edges)


def headline(rng: random.Random) -> list[r.HeadlineRow]:
    rows = []
    for role, accuracy, ms, note in (
        ("baseline", 0.912, 3.10, "largest network of the space"),
        ("knee", 0.901, 1.86, ""),
        ("fastest", 0.794, 0.97, ""),
        ("best", 0.906, 1.99, ""),
    ):
        rows.append(
            r.HeadlineRow(
                role=role,
                architecture=record(architecture(rng)),
                accuracy_valid=accuracy + 0.004,
                accuracy_test=accuracy,
                inherited_accuracy=accuracy - 0.11,
                predicted=predicted(1.02 * ms),
                measured_ms=ms,
                measured_wall_ms=1.1 * ms,
                measured_spread=0.02,
                params=int(ms * 140_000),
                macs=int(ms * 21_000_000),
                train_time_s=312.0,
                onnx=f"artifacts/{role}.onnx",
                parity_max_abs_difference=2.4e-7,
                note=note,
            )
        )
    return rows


def build_results(**changes: Any) -> r.RunResults:
    """Return results with every field filled; `changes` replace some."""
    rng = random.Random(7)
    candidates = []
    for index in range(30):
        arch = architecture(rng)
        accuracy, ms = quality(arch)
        candidates.append(
            r.Candidate(
                architecture=record(arch),
                accuracy=accuracy + rng.gauss(0, 0.01),
                predicted=predicted(ms),
                measured_ms=ms * rng.gauss(1, 0.03) if index < 18 else None,
            )
        )
    checks = []
    for _ in range(30):
        ms = rng.uniform(0.9, 3.2)
        checks.append(
            r.PredictionCheck(
                architecture_id=architecture(rng).id,
                predicted=predicted(ms * rng.gauss(1, 0.04)),
                measured_ms=ms,
                was_profiled=rng.random() < 0.2,
            )
        )
    ranking = [
        r.RankingCheck(
            architecture_id=architecture(rng).id,
            inherited_accuracy=0.6 + 0.03 * i + rng.gauss(0, 0.03),
            retrained_accuracy=0.84 + 0.01 * i + rng.gauss(0, 0.01),
        )
        for i in range(6)
    ]
    kernels = [
        r.KernelTime(
            op=op,
            signature=f"{op} 3x3 24→24 @ 32x32 f32",
            name=f"n{i}",
            ms=rng.random() / 12,
            is_measured=i % 13 != 5,
        )
        for i in range(38)
        for op in [rng.choice(("FusedConv", "Conv", "MaxPool", "AveragePool", "Concat"))]
    ]
    values: dict[str, Any] = {
        "name": "cifar10-enas",
        "created": NOW,
        "hwnas_version": "0.1.0",
        "command": "hwnas search recipes/cifar10-enas-micro.yaml --seed 3 --max-latency-ms 2.0",
        "seed": 3,
        "git": r.GitState(commit="8d2f0c1a9b7e6d5c4b3a29180f7e6d5c4b3a2918", is_dirty=True),
        "budget_ms": BUDGET_MS,
        "device": {
            "id": "intel-xeon-t1",
            "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            "cores": 2,
            "isa": ["avx2", "avx512f", "amx_int8"],
            "runtime": "onnxruntime",
            "runtime_version": "1.32.0",
            "provider": "CPUExecutionProvider",
            "threads": 1,
        },
        "table": r.TableProvenance(
            path="latency_tables/intel-xeon-t1/onnxruntime-1.32.json",
            device_id="intel-xeon-t1",
            runtime="onnxruntime",
            runtime_version="1.32.0",
            created=NOW - timedelta(days=2),
            entries=412,
            median_spread=0.018,
        ),
        "chosen": "knee",
        "headline": headline(rng),
        "front": candidates,
        "kernels": kernels,
        "prediction_checks": checks,
        "ranking_checks": ranking,
        "drawings": [network(rng)],
        "timings": [
            r.StageTiming(stage="profile", seconds=41.2),
            r.StageTiming(stage="search", seconds=1803.0),
            r.StageTiming(stage="train", seconds=940.0),
        ],
        "notes": [],
    }
    return r.RunResults(**(values | changes))


def make_trials(count: int, seed: int) -> list[StoredTrial]:
    rng = random.Random(seed)
    trials = []
    for number in range(count):
        arch = architecture(rng)
        accuracy, ms = quality(arch)
        accuracy = min(1.0, max(0.0, accuracy + 0.08 * number / count + rng.gauss(0, 0.02)))
        is_failed = number % 37 == 20
        trials.append(
            StoredTrial(
                id=number,
                state=TrialState.FAILED if is_failed else TrialState.COMPLETE,
                architecture=arch,
                metrics=None if is_failed else Metrics(accuracy, ms, 0.4),
                reward=None if is_failed else accuracy - 0.07 * abs(ms / BUDGET_MS - 1),
                epoch=number // 10,
                error="the loss became NaN in epoch 3" if is_failed else None,
            )
        )
    return trials


def make_events(epochs: int, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {
            "time": "2026-11-22T17:00:00.000+00:00",
            "kind": "epoch",
            "step": epoch + 1,
            "loss": 2.3 * 0.9**epoch + rng.random() / 20,
            "train_accuracy": 0.85 - 0.7 * 0.9**epoch,
            "accuracy_mean": 0.7 - 0.5 * 0.9**epoch + rng.gauss(0, 0.01),
            "accuracy_max": 0.76 - 0.5 * 0.9**epoch,
            "reward_mean": 0.65 - 0.5 * 0.9**epoch + rng.gauss(0, 0.01),
            "reward_max": 0.7 - 0.5 * 0.9**epoch,
            "infeasible_share": 0.6 * 0.95**epoch,
            "strategy/entropy": 1.6 - 0.02 * epoch,
            "strategy/baseline": 0.63 - 0.5 * 0.9**epoch,
            "seconds_train": 12.5,
        }
        for epoch in range(epochs)
    ]


@pytest.fixture
def make_results() -> Callable[..., r.RunResults]:
    """Build results with every field filled but for the changes."""
    return build_results


@pytest.fixture
def results() -> r.RunResults:
    """Results with every field filled."""
    return build_results()


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Write a run folder; `leave_out` names files that it lacks."""

    def make(
        name: str = "cifar10-enas-3",
        leave_out: tuple[str, ...] = (),
        seed: int = 1,
        state: str = "finished",
        trials: int = 200,
        **changes: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        config = {
            "name": name,
            "space": {"name": "enas_micro", "nodes": 4},
            "data": {"name": "cifar10"},
            "strategy": {"name": "enas"},
            "objective": {"max_latency_ms": BUDGET_MS},
        }
        info = {"format": 1, "state": state, "error": None, "command": "hwnas search x.yaml"}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "run.json").write_text(json.dumps(info))
        lines = [json.dumps(event) + "\n" for event in make_events(20, seed)]
        (folder / "events.jsonl").write_text("".join(lines))
        database = TrialsDb(folder / "trials.db")
        database.put(make_trials(trials, seed))
        database.close()
        build_results(name=name, **changes).write(folder / "results.json")
        for file in leave_out:
            (folder / file).unlink()
        return folder

    return make


@pytest.fixture
def make_run(make_folder: MakeFolder) -> MakeRun:
    """Write a run folder and load it."""
    return lambda *args, **changes: RunData.load(make_folder(*args, **changes))
