"""Bundles: what a device without hwnas runs, and what comes back.

`data/samples.json`: samples of 13 items (kernels and networks of enas_micro) and the first 4,000
anchors, in nanoseconds, as run.py took them; Intel Xeon (Sapphire Rapids), ONNX Runtime 1.32, one
thread, 2026-11-23, while other programs used both cores.
"""

from __future__ import annotations

import ast
import hashlib
import json
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hwnas.errors import HwnasError, UserInputError
from hwnas.latency.device import Device
from hwnas.latency.predictor import LatencyPredictor
from hwnas.latency.remote.bundle import read_manifest, write_bundle
from hwnas.latency.remote.results import read_results
from hwnas.latency.timing import Protocol, Stopwatch, _Samples
from tests.latency.conftest import QUICK, graphs

TARGET = Path(sys.modules[write_bundle.__module__].__file__).parent / "target"
SAMPLES = json.loads((Path(__file__).parent / "data" / "samples.json").read_text())
#: run.py as on a machine without hwnas and what hwnas needs.
ALONE = (
    "import runpy, sys\n"
    "for name in ('hwnas', 'onnx', 'torch', 'pydantic', 'yaml'): sys.modules[name] = None\n"
    "sys.path.insert(0, sys.argv[1]); sys.argv = ['run.py']\n"
    "runpy.run_path(sys.path[0] + '/run.py', run_name='__main__')"
)


@pytest.fixture(scope="module")
def runner():
    sys.path.insert(0, str(TARGET))
    try:
        import run
    finally:
        sys.path.remove(str(TARGET))
    return run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, conv_chain, device):
    path = tmp_path_factory.mktemp("bundle") / "out.zip"
    return write_bundle(
        path, conv_chain, device, networks=8, calibration_networks=3, protocol=QUICK
    )


def unpacked(bundle, folder):
    with zipfile.ZipFile(bundle.path) as archive:
        archive.extractall(folder)
    return folder


def call(folder):
    return subprocess.run(
        [sys.executable, "-c", ALONE, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def measured(bundle, tmp_path_factory):
    folder = unpacked(bundle, tmp_path_factory.mktemp("target"))
    done = call(folder)
    assert done.returncode == 0, done.stderr
    assert "visit" in done.stdout
    return folder


@pytest.mark.parametrize("name", ["run.py", "machine.py"])
def test_what_the_target_runs_is_python_3_8_with_numpy_and_onnxruntime_only(name):
    tree = ast.parse((TARGET / name).read_text(), feature_version=(3, 8))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {each.split(".")[0] for each in imported} - sys.stdlib_module_names
    assert foreign <= {"numpy", "onnxruntime", "machine"}


@pytest.mark.parametrize("tolerance", [0.02, 0.06, 0.5])
def test_both_forms_of_the_protocol_say_the_same_of_recorded_samples(runner, tolerance):
    protocol = Protocol(anchor_tolerance=tolerance)
    plain = runner.Stopwatch(lambda: None, protocol.model_dump(), [])
    plain.anchors[:], plain._stale_at = SAMPLES["anchors"], 0
    compiled = Stopwatch.__new__(Stopwatch)
    compiled.protocol, compiled._anchors, compiled._stale_at = protocol, SAMPLES["anchors"], 0
    assert plain.clean == pytest.approx(compiled.anchor_clean_ns, rel=1e-12)
    assert plain.disturbed_share == compiled.disturbed_share
    accepted = set()
    for each in SAMPLES["items"]:
        theirs = runner.summarise(each, tolerance, plain.clean)
        ours = asdict(compiled._summarise(_Samples(**each, visits=[0])))
        accepted.add(ours["accepted"])
        assert theirs == pytest.approx({key: ours[key] for key in theirs}, rel=1e-12)
    assert len(accepted) > 1, "samples that are all clean, or none, show nothing"


def test_a_bundle_has_no_weights_and_is_the_same_each_time(bundle, conv_chain, device, tmp_path):
    again = write_bundle(
        tmp_path / "b.zip", conv_chain, device, networks=8, calibration_networks=3, protocol=QUICK
    )
    assert again.path.read_bytes() == bundle.path.read_bytes()
    assert bundle.size < 1500 * (bundle.kernels + bundle.networks) + 30_000


def test_results_become_a_table_of_that_device(bundle, measured, device):
    table, notes = read_results(measured / "results.json", read_manifest(bundle.path))
    assert table.fingerprint == device.fingerprint
    assert len(table.entries) == bundle.kernels
    assert len(table.networks) == bundle.networks
    assert notes == []
    assert table.is_imported
    assert table.overhead_ms > 0


def test_a_killed_run_goes_on_where_it_was(bundle, tmp_path):
    folder = unpacked(bundle, tmp_path)
    log = folder / "progress.jsonl"
    command = [sys.executable, "-c", ALONE, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if log.exists() and log.read_bytes().count(b"\n") > 4:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not (folder / "results.json").exists()
    before = log.read_bytes()
    before = before[: before.rindex(b"\n") + 1]
    log.write_bytes(before + b'{"item": 3, "cpu": [1.0')  # as if killed within a line
    assert call(folder).returncode == 0
    assert log.read_bytes().startswith(before)
    items = [json.loads(each)["item"] for each in log.read_text().splitlines()[1:]]
    assert sorted(items) == sorted(set(items)), "with one round, everything is visited once"
    read_results(folder / "results.json", read_manifest(bundle.path))


def test_a_kernel_that_fails_there_is_named_and_the_rest_is_measured(bundle, tmp_path):
    folder = unpacked(bundle, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    broken = next(each for each in manifest["items"] if each["kind"] == "kernel")
    (folder / broken["file"]).write_bytes(b"no model")
    assert call(folder).returncode == 0
    table, notes = read_results(folder / "results.json", read_manifest(bundle.path))
    assert broken["signature"] not in table.entries
    assert len(table.entries) == bundle.kernels - 1
    assert "1 of" in notes[0]


def changed(value, where, new):
    *path, last = where
    part = value
    for each in path:
        part = part[each]
    part[last] = new
    return value


@pytest.mark.parametrize(
    ("where", "new"),
    [
        (["device", "cpu"], "x\n../../etc"),
        (["device", "precision"], "../../../tmp/x"),
        (["device", "runtime"], "../onnxruntime"),
        (["device", "threads"], 10**6),
        (["device", "threads"], True),
        (["device", "cache_kib"], 10**400),
        (["device", "isa"], ["../x"]),
        (["device", "physical_cores"], 4096),
        (["results", 3, "ms"], -1.0),
        (["results", 3, "ms"], 0.0),
        (["results", 3, "ms"], 1e300),
        (["results", 3, "ms"], float("nan")),
        (["results", 3, "ms"], "1"),
        (["results", 3, "ms"], None),
        (["results", 3, "accepted"], 10**8),
        (["results", 3, "sha256"], "0" * 64),
        (["results"], []),
        (["manifest_sha256"], "0" * 64),
        (["manifest"], "{}"),
        (["schema_version"], 2),
        (["extra"], 1),
        (["date"], "today"),
        (["host_before"], {"x": {"y": []}}),
    ],
    ids=lambda each: "/".join(map(str, each)) if isinstance(each, list) else str(each)[:12],
)
def test_results_that_are_not_exactly_as_asked_are_refused(measured, tmp_path, where, new):
    value = json.loads((measured / "results.json").read_text())
    path = tmp_path / "results.json"
    path.write_text(json.dumps(changed(value, where, new)))
    with pytest.raises(UserInputError, match=r"cannot be imported"):
        read_results(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UserInputError, match=r"cannot be imported"):
        read_results(path)


def test_a_signature_runs_nothing(bundle, measured, tmp_path):
    evil = "::Conv-1{'a': __import__('os').mkdir('evil')}(f32[1]) -> (f32[1])"
    value = json.loads((measured / "results.json").read_text())
    manifest = json.loads(value["manifest"])
    next(each for each in manifest["items"] if each["kind"] == "kernel")["signature"] = evil
    value["manifest"] = json.dumps(manifest)
    value["manifest_sha256"] = hashlib.sha256(value["manifest"].encode()).hexdigest()
    path = tmp_path / "results.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UserInputError, match="signature"):
        read_results(path)
    assert not Path("evil").exists()
    with pytest.raises(UserInputError, match="another bundle"):
        read_results(path, read_manifest(bundle.path))


def test_reading_a_bundle_unpacks_nothing(bundle, tmp_path):
    path = tmp_path / "in" / "evil.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", read_manifest(bundle.path))
        archive.writestr("../outside", "x")
        archive.writestr("/tmp/hwnas-absolute", "x")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc")
    assert read_manifest(path) == read_manifest(bundle.path)
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["evil.zip", "in"]
    assert not Path("/tmp/hwnas-absolute").exists()


def test_a_zip_bomb_and_what_is_no_zip_are_refused(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * (65 * 2**20))
    with pytest.raises(UserInputError, match="64 MiB"):
        read_manifest(path)
    path.write_bytes(b"PK not a zip")
    with pytest.raises(UserInputError, match="not a bundle"):
        read_manifest(path)


@pytest.fixture
def elsewhere(bundle, measured):
    """A table of a machine that is not this one: as measured, with another processor's name."""
    table, _ = read_results(measured / "results.json", read_manifest(bundle.path))
    table.fingerprint = replace(table.fingerprint, cpu="Another CPU")
    return table


def test_networks_of_an_imported_table_are_predicted_here(elsewhere, conv_chain):
    device = Device.elsewhere(elsewhere.fingerprint)
    predictor = LatencyPredictor(elsewhere, device, on_miss="measure")
    known = graphs(conv_chain, 1, seed=0)
    found = predictor.predict(known)[0]
    assert 0 < found.ms < 1000
    del elsewhere.entries[next(iter(elsewhere.entries))]
    with pytest.raises(HwnasError, match="its device is not this machine"):
        LatencyPredictor(elsewhere, device, on_miss="measure").predict(
            graphs(conv_chain, 20, seed=0)
        )


def test_another_version_of_the_runtime_is_said(elsewhere):
    with pytest.warns(UserWarning, match="may fuse otherwise"):
        Device.elsewhere(replace(elsewhere.fingerprint, runtime_version="1.2.3"))
