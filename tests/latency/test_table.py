from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hwnas.errors import TableMismatch, UserInputError
from hwnas.latency.device import Device, compare
from hwnas.latency.predictor import LatencyPredictor
from hwnas.latency.table import LatencyTable, default_path, find_table, shipped_tables
from tests.latency.conftest import graphs


@pytest.fixture
def path(table, tmp_path):
    return table.save(tmp_path / "device" / "onnxruntime.json")


def test_a_saved_table_loads_as_it_was(table, path, device):
    again = LatencyTable.load(path, device)
    assert again.entries == table.entries
    assert again.fingerprint == table.fingerprint
    assert sorted(again.networks, key=str) == sorted(table.networks, key=str)
    assert again.overhead_ms == table.overhead_ms


def test_saving_again_changes_no_byte(path):
    before = path.read_bytes()
    LatencyTable.load(path).save()
    assert path.read_bytes() == before


def test_the_order_of_measuring_leaves_no_trace_in_the_file(table, path):
    before = path.read_bytes()
    table.entries = dict(reversed(table.entries.items()))
    table.networks = table.networks[::-1]
    table.save()
    assert path.read_bytes() == before


def test_saving_leaves_no_temporary_files(path):
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "onnxruntime.contexts.json", "onnxruntime.json",
    ]  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_table_is_refused(path, share):
    text = path.read_text()
    path.write_text(text[: int(share * len(text))])
    with pytest.raises(UserInputError, match="damaged or truncated") as error:
        LatencyTable.load(path)
    assert "hwnas profile" in (error.value.hint or "")


def damage(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda v: next(iter(v["entries"].values())).update(ms=-1.0), "entries"),
        (lambda v: next(iter(v["entries"].values())).pop("ms"), "entries"),
        (lambda v: next(iter(v["entries"].values())).update(extra=1), "entries"),
        (lambda v: v["entries"].update({"no signature": {}}), "entries"),
        (lambda v: v.pop("device"), "device"),
        (lambda v: v["device"].update(threads="one"), "device"),
        (lambda v: v["networks"][0].update(ms="fast"), "networks"),
    ],
)
def test_a_damaged_table_is_refused_and_the_place_is_named(path, change, where):
    damage(path, change)
    with pytest.raises(UserInputError, match=where):
        LatencyTable.load(path)


def test_a_table_of_another_schema_is_refused(path):
    damage(path, lambda v: v.update(schema_version=99))
    with pytest.raises(TableMismatch, match="schema version 99"):
        LatencyTable.load(path)


def test_json_that_is_no_object_is_refused(path):
    path.write_text("[]")
    with pytest.raises(UserInputError, match="not a latency table"):
        LatencyTable.load(path)


def test_a_missing_table_says_how_to_make_one(tmp_path):
    with pytest.raises(UserInputError, match="no latency table") as error:
        LatencyTable.load(tmp_path / "none.json")
    assert "hwnas profile" in (error.value.hint or "")


def test_a_table_of_another_device_is_refused_and_the_difference_named(path, device):
    damage(path, lambda v: v["device"].update(cpu="Cray-1", threads=7))
    with pytest.raises(TableMismatch, match=r"cpu is 'Cray-1' .* threads is 7") as error:
        LatencyTable.load(path, device)
    assert error.value.exit_code == 5


def test_other_instruction_sets_are_named(device: Device):
    here = device.fingerprint
    [difference] = compare(replace(here, isa=(*here.isa[1:], "amx_tile")), here)
    assert "only in the table: amx_tile" in difference
    assert f"only here: {here.isa[0]}" in difference


def test_a_place_that_cannot_be_written_to_is_a_clear_error(table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserInputError, match="cannot write"):
        table.save(tmp_path / "file" / "table.json")


def test_a_failed_write_keeps_the_old_table(table, path, monkeypatch):
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    table.entries.clear()
    with pytest.raises(UserInputError, match="No space left"):
        table.save()
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 2


def test_the_table_of_this_device_is_found(table, tmp_path, device, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table.save(default_path(device, tmp_path))
    found = find_table(device, [tmp_path])
    assert found is not None
    assert found.path == default_path(device, tmp_path)


@pytest.mark.parametrize("path", list(shipped_tables()), ids=lambda path: path.parent.name)
def test_shipped_tables_are_valid_and_predict(path, conv_chain):
    table = LatencyTable.load(path)
    assert table.provenance[-1]["protocol"]
    assert {"conv_chain", "enas_micro"} <= set(table.spaces)
    predictor = LatencyPredictor(table, space="conv_chain")
    known = [g for g in graphs(conv_chain, 30, seed=0) if predictor.decomposer.look_up(g)]
    assert len(known) >= 20
    for prediction in predictor.predict(known):
        assert 0 < prediction.low_ms < prediction.ms < prediction.high_ms < 100


@pytest.mark.parametrize("path", list(shipped_tables()), ids=lambda path: path.parent.name)
def test_shipped_tables_agree_with_the_networks_they_recorded(path):
    """Prediction against recorded, clean measurements: nothing is timed here."""
    table = LatencyTable.load(path)
    for space in table.spaces:
        residuals = LatencyPredictor(table, space=space).calibration.residuals
        assert sorted(map(abs, residuals))[len(residuals) // 2] < 0.1


def test_the_file_says_which_clock_its_times_are_by(table, tmp_path):
    one = json.loads(table.save(tmp_path / "t1.json").read_text())
    table.fingerprint = replace(table.fingerprint, threads=2)
    two = json.loads(table.save(tmp_path / "t2.json").read_text())
    assert one["units"]["ms"].startswith("thread CPU time")
    assert two["units"]["ms"].startswith("wall time")
    assert LatencyTable.load(tmp_path / "t2.json").fingerprint.threads == 2


def test_one_thread_does_not_read_a_table_of_two(table, tmp_path, device):
    table.fingerprint = replace(table.fingerprint, threads=2)
    path = table.save(tmp_path / "t2.json")
    with pytest.raises(TableMismatch, match="threads is 2 in the table and 1 here"):
        LatencyTable.load(path, device)


def test_a_table_of_a_runtime_that_is_not_known_here_can_be_saved(table, tmp_path):
    table.fingerprint = replace(table.fingerprint, runtime="abacus")
    assert "CPU time" in json.loads(table.save(tmp_path / "a.json").read_text())["units"]["ms"]
