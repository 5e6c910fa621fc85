"""A configuration that gives the architecture: it is priced, trained and exported, not searched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hwnas import Study
from hwnas.errors import UserInputError
from hwnas.graph import Architecture
from hwnas.spaces import Published, Stated
from hwnas.spaces.conv_chain import ConvChain

PICKS = {"width": 4, "depth": 1, "layer0/op": "sep_conv", "layer0/kernel": 3}


@pytest.fixture
def given(tiny: dict[str, Any], table: Path) -> dict[str, Any]:
    return {**tiny, "architecture": PICKS, "latency": {"table": str(table)}}


def test_it_is_trained_and_exported_without_a_search(given: dict[str, Any], tmp_path: Path) -> None:
    study = Study(given)
    found = study.search(tmp_path / "run")
    assert [each.architecture.answers for each in found.candidates] == [PICKS]
    assert found.candidates[0].accuracy is None
    assert not (tmp_path / "run/checkpoints/1").exists()
    (row,) = [row for row in study.train() if row.role == "best"]
    assert row.accuracy_test is not None
    assert study.export_all()["best"].max_abs_difference is not None
    assert study.report().exists()
    again = Study({**given, "architecture": str(tmp_path / "run/best.json")})
    assert again.context.space.given == Architecture(PICKS)


def test_the_text_of_a_network_is_in_the_results_and_in_its_card(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConvChain, "format", lambda self, found: f"one {found['layer0/op']}")
    study = Study(given)
    study.search(tmp_path / "run")
    study.train()
    study.export_all()
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert {row["architecture"]["text"] for row in results["headline"]} == {"one sep_conv"}
    card = json.loads((tmp_path / "run/best.json").read_text())
    assert card["architecture_text"] == "one sep_conv"
    assert "one sep_conv" in (tmp_path / "run/best.md").read_text()
    assert "one sep_conv" in study.report().read_text()


def test_check_says_that_nothing_is_searched(given: dict[str, Any]) -> None:
    found = Study(given).check()
    assert found.size == 1
    assert found.estimated_s is None
    assert len(set(found.macs)) == 1
    assert any("ignored" in each for each in found.warnings)


def test_a_published_network_goes_by_its_name(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Published(Architecture(PICKS), {}, (1, 8, 8), 10, "a test", Stated(1))
    monkeypatch.setattr(ConvChain, "published", classmethod(lambda cls: {"Tiny": network}))
    named = Study({**given, "architecture": "published:Tiny"})
    assert named.context.space.given == Architecture(PICKS)
    with pytest.raises(UserInputError, match="publishes no network 'Tny'") as caught:
        Study({**given, "architecture": "published:Tny"}).check()
    assert "Tiny" in str(caught.value.hint)


@pytest.mark.parametrize("value", ["nowhere.json", {**PICKS, "width": 5}, {"depth": 1}])
def test_what_is_no_architecture_of_the_space_is_refused(
    given: dict[str, Any], value: object, tmp_path: Path
) -> None:
    with pytest.raises(UserInputError):
        Study({**given, "architecture": value}).search(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_file_is_named(given: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "picks.json"
    file.write_text("{")
    with pytest.raises(UserInputError, match=r"picks\.json cannot be read"):
        Study({**given, "architecture": str(file)}).check()
    file.write_text(json.dumps({"answers": PICKS, "id": "0"}))
    Study({**given, "architecture": str(file)}).check()
