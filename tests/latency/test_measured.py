from __future__ import annotations

import json

import pytest

from hwnas.errors import UserInputError
from hwnas.export.onnx import to_onnx
from hwnas.latency.measured import compare, read_networks, write_networks
from hwnas.study.remote import import_file
from tests.latency.conftest import graphs


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_networks_that_are_written_are_read(table, device, tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"nets{suffix}"
    write_networks(path, table.networks)
    assert read_networks(path, device) == table.networks


def test_an_onnx_file_becomes_its_kernels(table, device, conv_chain, tmp_path):
    (tmp_path / "a.onnx").write_bytes(to_onnx(graphs(conv_chain, 1, seed=1)[0]).SerializeToString())
    (tmp_path / "nets.csv").write_text("id,ms,onnx\na,0.25,a.onnx\n")
    found = read_networks(tmp_path / "nets.csv", device)
    assert found[0].kernels == table.networks[0].kernels
    assert (found[0].ms, found[0].wall_ms) == (0.25, 0.25)


def test_a_table_is_compared_with_networks_before_they_calibrate_it(table, tmp_path):
    exact = compare(table, table.networks)
    assert exact is not None
    assert (exact.compared, exact.within_10) == (20, 1.0)
    assert exact.median_ratio == pytest.approx(1, abs=1e-3)
    path = table.save(tmp_path / "table.json")
    import_file(path, tmp_path / "nets.csv")
    rows = (tmp_path / "nets.csv").read_text().splitlines()
    (tmp_path / "one.csv").write_text(f"{rows[0]}\n{rows[1].replace('net0', 'new')}\n")
    made = import_file(tmp_path / "one.csv", path)
    assert made.notes[0].startswith("1 of them were predicted: 100% within 10 %")
    assert len(type(table).load(path).networks) == 21


KERNELS = json.dumps({"0" * 10: 1}).replace('"', '""')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "id\nx\n",
        f'id,ms,kernels\nx,-1,"{KERNELS}"\n',
        f'id,ms,kernels\nx,nan,"{KERNELS}"\n',
        f'id,ms,kernels\nx,inf,"{KERNELS}"\n',
        f'id,ms,kernels\nx,1e400,"{KERNELS}"\n',
        "id,ms,kernels\nx,1,{}\n",
        'id,ms,kernels\nx,1,"{""0000000000"": 1000000000}"\n',
        "id,ms,onnx\nx,1,../a.onnx\n",
        "id,ms,onnx\nx,1,/etc/passwd\n",
        "id,ms,onnx\nx,1,nets.csv\n",
        "id,ms\nx,1\n",
    ],
)
def test_rows_that_mean_nothing_are_refused(device, tmp_path, text):
    (tmp_path / "nets.csv").write_text(text)
    with pytest.raises(UserInputError):
        read_networks(tmp_path / "nets.csv", device)
