from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from hwnas import Study
from hwnas.errors import InfeasibleConstraint, UserInputError
from hwnas.latency.table import LatencyTable, user_folder
from hwnas.report.results import RunResults
from hwnas.study import RunConfig
from hwnas.study.picks import descend, largest
from hwnas.study.tables import FILE


@pytest.fixture
def study(tiny: dict[str, Any], table: Path) -> Study:
    return Study(tiny, [f"latency.table={table}"])


def test_the_python_twin_does_all_that_the_command_line_does(study: Study, tmp_path: Path) -> None:
    found = study.search(tmp_path / "run")
    rows = study.train()
    exports = study.export_all()
    study.verify_predictions()
    report = study.report()

    assert found.candidates
    assert {row.role for row in rows if row.accuracy_test is not None} >= {"best", "baseline"}
    assert exports["best"].max_abs_difference is not None
    assert report.read_text().startswith("<!doctype html>")
    results = RunResults.read(tmp_path / "run/results.json")
    assert results.chosen == "best"
    assert len(results.prediction_checks) == 2
    assert results.kernels
    assert results.drawings
    row = results.chosen_row
    assert row is not None
    assert row.predicted is not None
    assert 0 < sum(kernel.ms for kernel in results.kernels) <= 1.001 * row.predicted.ms
    onnx = tmp_path / "run/best.onnx"
    assert study.bench(onnx, rounds=1)[0].ms > 0
    architecture = study.context.space.sample(random.Random(0))
    by_file, by_picks = study.predict(onnx, architecture)
    assert by_file.ms is not None
    assert by_picks.ms is not None


def test_the_test_split_is_not_read_before_the_training(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_: object) -> None:
        raise AssertionError("the test split was read during the search")

    with monkeypatch.context() as patch:
        patch.setattr("hwnas.data.digits.Digits._read_test", forbidden)
        study.search(tmp_path / "run")
    study.train(["best"])


def test_stages_need_a_run_first(tiny: dict[str, Any]) -> None:
    for stage in ("train", "export", "export_all", "report", "rows"):
        with pytest.raises(UserInputError, match="no run yet"):
            getattr(Study(tiny), stage)()


def test_two_runs_with_the_same_seed_find_the_same(
    tiny: dict[str, Any], table: Path, tmp_path: Path
) -> None:
    found = []
    for name in ("a", "b"):
        study = Study(tiny, [f"latency.table={table}", "seed=5"])
        study.search(tmp_path / name)
        study.train(["best"])
        stages = json.loads((tmp_path / name / "stages.json").read_text())
        (trained,) = (v["value"] for k, v in stages.items() if k.startswith("train/"))
        found.append((stages["search"]["value"], trained | {"train_time_s": 0}))
    assert found[0] == found[1]


def test_an_opened_study_has_the_configuration_of_its_run(study: Study, tmp_path: Path) -> None:
    study.search(tmp_path / "run")
    again = Study.open(tmp_path / "run")
    assert again.config == study.config
    assert isinstance(again.config, RunConfig)
    assert Study(study.config).config == study.config


def test_the_run_keeps_a_table_of_its_own_and_leaves_the_named_one_alone(
    study: Study, table: Path, tmp_path: Path
) -> None:
    before = table.read_bytes()
    study.search(tmp_path / "run")
    assert table.read_bytes() == before
    assert LatencyTable.load(tmp_path / "run" / FILE).entries


def test_auto_finds_what_profile_wrote(tiny: dict[str, Any]) -> None:
    made = Study(tiny).profile()
    assert user_folder() in made.path.parents
    found = Study(tiny).pricing().table
    assert found.entries.keys() >= LatencyTable.load(made.path).entries.keys()


def test_a_budget_is_a_share_of_the_space_when_asked_for(
    study: Study, tiny: dict[str, Any]
) -> None:
    half = Study({**tiny, "objective": {"latency_percentile": 50}}, ["seed=1"])
    half._pricing = study.pricing()
    found = half.feasibility()
    assert found.budget_ms == pytest.approx(found.median_ms)
    assert 0.4 < found.share <= 1


def test_the_message_of_an_impossible_budget_names_a_possible_one(study: Study) -> None:
    hopeless = Study(study.config, ["objective.max_latency_ms=1e-6"])
    hopeless._pricing = study.pricing()
    with pytest.raises(InfeasibleConstraint) as caught:
        hopeless.feasibility()
    assert "meets 1e-06 ms" in caught.value.message
    fastest = float(caught.value.message.split("predicted at ")[1].split(" ms")[0])
    possible = Study(study.config, [f"objective.max_latency_ms={1.06 * fastest}"])
    possible._pricing = study.pricing()
    assert possible.feasibility().share > 0


@pytest.mark.parametrize("space", ["conv_chain", "enas_micro"])
def test_the_largest_network_is_at_least_as_large_as_all_samples(space: str) -> None:
    from hwnas.graph.counts import macs

    study = Study({"space": space})
    found = study.context.space
    rng = random.Random(0)
    biggest = largest(found, [found.sample(rng) for _ in range(3)])
    others = [found.sample(rng) for _ in range(30)]
    assert macs(found.graph(biggest)) >= max(macs(found.graph(each)) for each in others)


@pytest.mark.parametrize("name", ["conv_chain", "transform"])  # one whose options depend on picks
def test_descending_never_ends_higher_than_it_began(py_rng: random.Random, name: str) -> None:
    space = Study({"space": name}).context.space
    for _ in range(5):
        start = space.sample(py_rng)
        best, cost = descend(space, start, lambda them: [hash(a) % 1000 for a in them])
        assert cost == hash(best) % 1000
        assert cost <= hash(start) % 1000
        space.graph(best)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one hardware thread only")
def test_bench_and_predict_use_the_configured_device_with_its_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    for name in ("bench", "predict"):
        monkeypatch.setattr(
            f"hwnas.study.bench.{name}", lambda files, **given: seen.append(given["runtime"]) or []
        )
    study = Study("digits_demo", ["latency.runtime=onnxruntime:threads=2"])
    study.bench("x.onnx")
    study.predict("x.onnx")
    assert [each.fingerprint.threads for each in seen] == [2, 2]
