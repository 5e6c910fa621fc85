"""`train.space`: the network that is deployed is larger than the one that is searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwnas import Study
from hwnas.errors import ConfigError, UserInputError
from hwnas.graph import Architecture
from hwnas.graph.counts import params
from hwnas.study.load import load_config

LARGER = "train.space={halve_after: [0]}"


def test_what_is_trained_priced_and_exported_is_the_deployed_network(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    study = Study(tiny, [LARGER, "latency.profile_rounds=1"])
    found = study.search(tmp_path / "run")
    best = Architecture(found.candidates[0].architecture.answers)
    searched, deployed = study.context.space.graph(best), study.context.deployed.graph(best)
    assert searched != deployed
    rows = {row.role: row for row in study.train()}
    assert rows["best"].params == params(deployed) != params(searched)
    exported = study.export_all()["best"]
    (predicted,) = study.pricing().predict([best])
    assert exported.predicted_ms == predicted.ms
    by_file = study.predict(tmp_path / "run/best.onnx")[0].ms
    # The file knows of no space, so its correction is fitted to other networks: on a busy machine
    # the two differ by some per cent.
    assert by_file == pytest.approx(predicted.ms, rel=0.3)


def test_an_unknown_setting_is_refused_where_it_stands(tiny: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tiny, ["train.space={halve_aftr: [0], max_depth: 0}"])
    text = "\n".join(caught.value.problems)
    assert "train.space.halve_aftr" in text
    assert "train.space.max_depth" in text


def test_a_setting_that_changes_the_picks_is_refused_before_any_work(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    study = Study(tiny, ["train.space={min_width: 16, max_width: 16}"])
    with pytest.raises(UserInputError, match=r"train\.space changes what the space asks"):
        study.search(tmp_path / "run")
    with pytest.raises(UserInputError, match=r"train\.space"):
        study.check()
