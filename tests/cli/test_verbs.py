from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwnas.study.tables import Profiled

if TYPE_CHECKING:
    from tests.cli.conftest import Python, Ran

    Hwnas = Callable[..., Ran]


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_a_whole_study_works_verb_by_verb(
    hwnas: Hwnas, tiny: Path, table: Path, tmp_path: Path
) -> None:
    said = hwnas("search", tiny, "--set", f"latency.table={table}", "--out", "run", "--seed", 3)
    assert said.code == 0, said
    assert said.out.rstrip().splitlines()[-2].startswith("Next     hwnas train run")
    for words in (["train", "run"], ["export", "run"], ["report", "run"]):
        said = hwnas(*words)
        assert said.code == 0, said
    results = json.loads((tmp_path / "run/results.json").read_text())
    (best,) = (row for row in results["headline"] if row["role"] == "best")
    assert results["seed"] == 3
    assert best["onnx"] == "best.onnx"
    assert 0 < best["accuracy_test"] <= 1
    assert best["measured_ms"] > 0
    assert best["parity_max_abs_difference"] < 1e-3
    for name in ("best.onnx", "best.md", "best.json", "report.html"):
        assert (tmp_path / "run" / name).stat().st_size > 0


def test_a_finished_stage_is_not_repeated(hwnas: Hwnas, run: Path) -> None:
    before = (run / "stages.json").read_text()
    assert hwnas("search", "--resume", run).code == 0
    assert hwnas("train", run).code == 0
    assert hwnas("export", run).code == 0
    assert (run / "stages.json").read_text() == before


@pytest.mark.parametrize("pick", ["best", "knee", "fastest", "baseline"])
def test_every_role_can_be_trained_and_exported(hwnas: Hwnas, run: Path, pick: str) -> None:
    assert hwnas("train", run, "--pick", pick, "--epochs", 1, "--again").code == 0
    said = hwnas("export", run, "--pick", pick, "--out", "here.onnx", "--json")
    assert said.code == 0, said
    assert json.loads(said.out)["onnx"].endswith("here.onnx")


@pytest.mark.parametrize("pick", ["bets", "0123456789ab"])
def test_an_unknown_pick_is_refused_with_those_that_exist(
    hwnas: Hwnas, run: Path, pick: str
) -> None:
    said = hwnas("train", run, "--pick", pick)
    assert said.code == 3
    assert "best, knee, fastest, baseline" in said.err


def test_export_of_what_was_not_trained_says_how_to_train_it(hwnas: Hwnas, run: Path) -> None:
    said = hwnas("export", run, "--pick", "baseline")
    assert said.code == 3
    assert "hwnas train" in said.err


def test_bench_and_predict_read_any_onnx_file(hwnas: Hwnas, run: Path) -> None:
    measured = json.loads(hwnas("bench", run / "best.onnx", "--repeats", 2, "--json").out)
    predicted = json.loads(hwnas("predict", run / "best.onnx", "--json").out)
    assert measured["models"][0]["ms"] > 0
    assert measured["models"][0]["predicted_ms"] == predicted["models"][0]["ms"]
    assert predicted["models"][0]["missing"] == []


def test_a_file_that_is_no_onnx_model_is_refused(hwnas: Hwnas, tmp_path: Path) -> None:
    for content in (b"hello", b"", b"\x00" * 100):
        (tmp_path / "x.onnx").write_bytes(content)
        for verb in ("bench", "predict"):
            said = hwnas(verb, "x.onnx")
            assert said.code == 3, said
            assert "x.onnx is not an ONNX file" in said.err


def test_predict_names_kernels_that_the_table_lacks(
    hwnas: Hwnas, run: Path, shared_data: Path
) -> None:
    shutil.copy(shared_data / "onnx/pypi-onnx__light_squeezenet.onnx", run / "other.onnx")
    found = json.loads(hwnas("predict", run / "other.onnx", "--json").out)["models"][0]
    assert found["ms"] is None
    assert found["missing"]


def test_profile_extends_a_table_and_compares_it(hwnas: Hwnas, tiny: Path, table: Path) -> None:
    said = hwnas("profile", tiny, "--out", "new.json", "--compare", table, "--samples", 4)
    assert said.code == 0, said
    assert "kernels in both" in said.out
    assert "Table" in said.out


@pytest.mark.parametrize(
    "words",
    [
        ["doctor"],
        ["ls"],
        ["ls", "spaces"],
        ["ls", "devices"],
        ["ls", "tables"],
        ["ls", "runs"],
        ["ls", "recipes", "digits*"],
        ["check", "digits_demo"],
    ],
)
def test_json_is_exactly_one_object(hwnas: Hwnas, words: list[str]) -> None:
    said = hwnas(*words, "--json")
    assert said.code == 0, said
    assert isinstance(json.loads(said.out), dict)


def test_every_kind_that_ls_names_can_be_listed(hwnas: Hwnas) -> None:
    kinds = [row["name"] for row in json.loads(hwnas("ls", "--json").out)["items"]]
    assert {"spaces", "strategies", "datasets", "rewards", "recipes", "runs"} <= set(kinds)
    for kind in kinds:
        assert hwnas("ls", kind).code == 0


def test_the_command_that_an_unknown_plug_in_suggests_works(hwnas: Hwnas) -> None:
    for flag in ("--space", "--strategy", "--device"):
        said = hwnas("search", "digits_demo", flag, "nonsense")
        command = said.err.split("List all with: ")[1].split()[:3]
        assert hwnas(*command[1:]).code == 0


def test_a_dry_run_says_what_is_possible_and_leaves_nothing(
    hwnas: Hwnas, tiny: Path, table: Path, tmp_path: Path
) -> None:
    said = hwnas("search", tiny, "--set", f"latency.table={table}", "--dry-run")
    assert said.code == 0, said
    assert "predicted" in said.out
    assert not list(tmp_path.iterdir())


def test_a_dry_run_without_latency_says_so(hwnas: Hwnas, tiny: Path, tmp_path: Path) -> None:
    said = hwnas("search", tiny, "--set", "latency.skip=true", "--dry-run")
    assert said.code == 0, said
    assert "latency plays no part" in said.out
    assert not list(tmp_path.iterdir())


def test_search_by_trials(hwnas: Hwnas, tiny: Path, table: Path) -> None:
    said = hwnas(
        "search", tiny, "--trials", 3, "--set", "estimator.epochs=1",
        "--set", f"latency.table={table}", "--out", "run", "--json",
    )  # fmt: skip
    assert said.code == 0, said
    assert 1 <= len(json.loads(said.out)["candidates"]) <= 3


def test_a_budget_for_the_training_time_is_predicted_and_kept(
    hwnas: Hwnas, tiny: Path, table: Path, tmp_path: Path
) -> None:
    said = hwnas(
        "search", tiny, "--set", "objective.max_train_time_s=100",
        "--set", f"latency.table={table}", "--out", "run",
    )  # fmt: skip
    assert said.code == 0, said
    assert "train_time" in json.loads((tmp_path / "run/stages.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_ends_with_a_network_and_a_report(python: Python, tmp_path: Path) -> None:
    ran = python.finish(python.start("demo", "--seconds", 20, "--json"), timeout=500)
    assert ran.code == 0, ran
    done = json.loads(ran.out)
    assert (tmp_path / done["onnx"]).exists()
    assert (tmp_path / done["report"]).exists()
    assert [row["role"] for row in done["rows"]] == ["baseline", "knee", "fastest", "best"]
    assert max(row["accuracy_test"] for row in done["rows"]) > 0.8
    assert all(row["measured_ms"] > 0 for row in done["rows"])


def test_other_epochs_for_a_trained_network_are_not_ignored(hwnas: Hwnas, run: Path) -> None:
    assert hwnas("train", run, "--epochs", 1, "--again").code == 0
    ran = hwnas("train", run, "--epochs", 3)
    assert ran.code == 3
    assert "was trained for 1 epochs already" in ran.err
    assert "--again" in ran.err


def test_the_command_after_profiling_names_the_device_that_was_profiled(
    hwnas: Hwnas, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Profiled(Path("two.json"), 1, 1, 0.0, 0)
    monkeypatch.setattr("hwnas.study.Study.profile", lambda *_, **__: made)
    name = "onnxruntime:threads=2"
    assert f"--device {name}" in hwnas("profile", "digits_demo", "--device", name).out
    assert "--device" not in hwnas("profile", "digits_demo").out
