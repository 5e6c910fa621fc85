"""A text from search to report, and runs in which latency plays no part."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from hwnas import Study
from hwnas.errors import ConfigError, UserInputError
from hwnas.study.load import load_config

TEXT: dict[str, Any] = {
    "name": "text",
    "threads": 1,
    "data": {
        "name": "shakespeare",
        "bptt": 5,
        "train_tokens": 4000,
        "valid_fraction": 0.002,
        "test_fraction": 0.002,
    },
    "space": {"name": "zoph_rnn", "base": 2, "hidden": 8, "layers": 1, "dropout": 0.0},
    "strategy": "random",
    "objective": {"reward": "perplexity"},
    "search": {
        "epochs": 2,
        "batch_size": 20,
        "optimiser": {"schedule": "exponential", "learning_rate": 0.5, "clip_norm": 0.25},
        "controller_steps": 1,
        "controller_samples": 3,
        "valid_batch_size": 10,
        "derive_samples": 3,
        "derive_batches": 2,
    },
    "trackers": [],
    "train": {
        "epochs": 2,
        "batch_size": 20,
        "optimiser": {"schedule": "exponential", "learning_rate": 0.5, "clip_norm": 0.25},
    },
    "latency": {"skip": True},
}


def test_a_language_model_is_searched_trained_exported_and_reported(tmp_path: Path) -> None:
    said: dict[str, str] = {}
    study = Study(TEXT, on_stage=lambda stage, text, _: said.update({stage: text}))
    found = study.search(tmp_path / "run")
    assert found.budget_ms is None
    assert all(each.predicted is None for each in found.candidates)
    assert {each.task for each in found.candidates} == {"language_model"}
    (row,) = [each for each in study.train() if each.role == "best"]
    assert row.accuracy_test is not None
    assert 1 / row.accuracy_test < 65  # better than a guess among 65 characters
    exported = study.export_all()["best"]
    assert exported.same_class == 1.0
    assert exported.predicted_ms is None
    perplexity = f"{1 / row.accuracy_test:.4g}"
    assert ("perplexity", f"{perplexity} on the test split") in exported.lines()
    assert said["retrain"].endswith(f"test up to perplexity {perplexity}")
    page = study.report().read_text()
    assert "Validation perplexity" in page
    assert "ccuracy (%)" not in page, "no figure may draw 1 / perplexity as a percentage"
    assert f"a perplexity of {perplexity} on the test split" in page
    card = json.loads((tmp_path / "run/best.json").read_text())
    assert card["input"]["dtype"] == "int64"
    assert len(card["classes"]) == 65


def test_latency_that_is_skipped_excludes_a_budget(tiny: dict[str, Any]) -> None:
    settings = {**tiny, "latency": {"skip": True}}
    assert Study(settings).check().table == "plays no part"
    with pytest.raises(ConfigError, match=r"latency\.skip"):
        load_config(settings, ["objective.max_latency_ms=1"])
    study = Study(settings)
    architecture = study.context.space.sample(random.Random(0))
    with pytest.raises(UserInputError, match="does not look at latency"):
        study.predict(architecture)
