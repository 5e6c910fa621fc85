"""Searches for devices that are not this machine: with an imported table, and with block tables."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwnas import Study
from hwnas.errors import DeviceError, TableMismatch, UserInputError
from hwnas.latency.blocks import BlockEntry, BlockTable, block_keys
from hwnas.latency.table import LatencyTable
from hwnas.study.remote import import_file


@pytest.fixture
def imported(tiny: dict[str, Any], tmp_path: Path) -> Path:
    """The table of another machine: measured here by its bundle, with another processor's name."""
    settings = {**tiny, "latency": {"profile_samples": 8, "profile_rounds": 1}}
    bundle = Study(settings).bundle(tmp_path / "out.zip")
    with zipfile.ZipFile(bundle.path) as archive:
        archive.extractall(tmp_path / "target")
    run = [sys.executable, str(tmp_path / "target" / "run.py"), "--rounds", "1"]
    subprocess.run(run, check=True, timeout=300, stdout=subprocess.DEVNULL)
    results = tmp_path / "target" / "results.json"
    value = json.loads(results.read_text())
    value["device"]["cpu"] = "Another CPU"
    results.write_text(json.dumps(value))
    return import_file(results, tmp_path / "other.json", bundle.path).path


def test_a_search_for_another_device_uses_its_table_and_measures_nothing(
    tiny: dict[str, Any], imported: Path, tmp_path: Path
) -> None:
    settings = {**tiny, "latency": {**tiny["latency"], "table": str(imported)}}
    study = Study(settings)
    found = study.search(out=tmp_path / "run")
    assert found is not None
    assert study.context.device.fingerprint.cpu == "Another CPU"
    own = LatencyTable.load(tmp_path / "run" / "latency_table.json")
    assert own.entries == LatencyTable.load(imported).entries
    assert not study.pricing().can_measure


def test_a_table_of_another_device_that_was_not_imported_is_refused(
    tiny: dict[str, Any], table: Path, tmp_path: Path
) -> None:
    other = LatencyTable.load(table)
    other.fingerprint = replace(other.fingerprint, cpu="Another CPU")
    path = other.save(tmp_path / "foreign.json")
    with pytest.raises(TableMismatch, match="another device"):
        Study({**tiny, "latency": {**tiny["latency"], "table": str(path)}}).pricing()


MOBILE: dict[str, Any] = {
    "name": "mobile", "stem": 4, "stem_stride": 1, "features": 16,
    "stages": [{"channels": 4, "blocks": 2}, {"channels": 8, "stride": 2}],
    "kernels": [3, 5], "expansions": [1, 2],
}  # fmt: skip


def test_a_search_with_a_table_of_blocks(tiny: dict[str, Any], tmp_path: Path) -> None:
    settings = {**tiny, "space": MOBILE}
    space = Study(settings).context.deployed
    rng = random.Random(1)
    graphs = [space.graph(space.sample(rng)).inference() for _ in range(300)]
    keys = sorted({key for graph in graphs for _, key in block_keys(graph)})
    blocks = BlockTable({key: BlockEntry(1.0 + i / 8) for i, key in enumerate(keys)})
    blocks.save(tmp_path / "lut.yaml")
    made = import_file(tmp_path / "lut.yaml", tmp_path / "lut.json")
    settings["latency"] = {**tiny["latency"], "table": str(made.path)}
    study = Study(settings)
    study.search(out=tmp_path / "run")
    pricing = study.pricing()
    architecture = space.sample(rng)
    found = pricing.predict([architecture])[0]
    assert found.ms == pytest.approx(blocks.ms(space.graph(architecture)))
    rows, shares = pricing.kernels(architecture)
    assert sum(row["ms"] for row in rows) == pytest.approx(found.ms)
    assert sum(shares.values()) == pytest.approx(1)
    with pytest.raises(DeviceError, match="not this machine"):
        pricing.measure({})


def test_what_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello")
    for path, why in ((tmp_path / "x", "nothing that can be imported"), (tmp_path / "y", "exist")):
        with pytest.raises(UserInputError, match=why):
            import_file(path)
