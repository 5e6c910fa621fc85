"""A search whose trials are looked up in a table: nothing is trained, nothing is profiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwnas import Study
from hwnas.spaces.nasbench201 import OPS, from_arch_str

EDGES = 6


def score(ops: tuple[str, ...]) -> float:
    """What the table says: the more 3×3 convolutions the better."""
    return 50.0 + 5.0 * ops.count("nor_conv_3x3")


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """A table of the cells of three nodes."""
    lines = ["arch_str,accuracy,seconds"]
    for a in OPS:
        for b in OPS:
            for c in OPS:
                text = f"|{a}~0|+|{b}~0|{c}~1|"
                lines.append(f"{text},{score((a, b, c))},{10 + OPS.index(a)}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return {
        "threads": 1,
        "data": {"name": "digits"},
        "space": {"name": "nasbench201", "nodes": 3, "stages": 1, "cells": 1, "channels": 4},
        "strategy": {"name": "random"},
        "objective": {"latency_percentile": None},
        "latency": {"skip": True},
        "search": {"loop": "trials", "trials": 40},
        "estimator": {
            "name": "table", "path": str(path), "accuracy": "accuracy",
            "accuracy_unit": "percent", "train_time_s": "seconds",
        },
    }  # fmt: skip


def test_every_trial_has_the_figures_of_its_row(config: dict[str, Any], tmp_path: Path) -> None:
    study = Study(config)
    found = study.search(tmp_path / "run").candidates
    assert len(found) > 20  # of 40 trials, some are of the same cell
    for each in found:
        answers = tuple(str(value) for value in each.architecture.answers.values())
        assert each.accuracy == pytest.approx(score(answers) / 100)
    accuracies = [each.accuracy for each in found]
    assert accuracies == sorted(accuracies, reverse=True)
    assert from_arch_str("|none~0|+|none~0|none~1|").keys() == found[0].architecture.answers.keys()
