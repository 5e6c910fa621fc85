from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hwnas.errors import TableMismatch, UserInputError
from hwnas.export.onnx import to_onnx
from hwnas.latency.kernels import fused_kernels
from hwnas.latency.predictor import LatencyPredictor
from hwnas.latency.table import LatencyTable
from tests.latency.conftest import QUICK, graphs, invented_ms


def test_a_network_costs_the_sum_of_its_kernels_where_that_is_the_truth(table, device, conv_chain):
    predictor = LatencyPredictor(table, device, space="conv_chain")
    for graph in graphs(conv_chain, 20, seed=1):
        signatures = [k.signature for k in fused_kernels(to_onnx(graph), device.runtime)]
        [found] = predictor.predict([graph])
        assert found.ms == pytest.approx(sum(map(invented_ms, signatures)) + 0.002, rel=0.01)
        assert found.kernels == len(signatures)
        assert found.low_ms <= found.ms <= found.high_ms


def test_predictions_do_not_depend_on_the_batch_they_are_asked_in(table, device, conv_chain):
    predictor = LatencyPredictor(table, device)
    several = graphs(conv_chain, 8, seed=1)
    assert predictor.predict(several) == [predictor.predict([graph])[0] for graph in several]
    assert predictor.predict([]) == []


def test_an_explanation_adds_up_to_the_prediction(table, device, conv_chain):
    predictor = LatencyPredictor(table, device)
    for graph in graphs(conv_chain, 5, seed=1):
        shares = predictor.explain(graph)
        total = sum(each.ms for each in shares) + predictor.calibration.constant_ms
        assert total == pytest.approx(predictor.predict([graph])[0].ms)
        assert [each.ms for each in shares] == sorted((s.ms for s in shares), reverse=True)


def test_a_file_costs_what_its_graph_costs(table, device, conv_chain):
    predictor = LatencyPredictor(table, device)
    for graph in graphs(conv_chain, 5, seed=1):
        by_file = predictor.predict_kernels(fused_kernels(to_onnx(graph), device.runtime))
        assert by_file.ms == pytest.approx(predictor.predict([graph])[0].ms)


def forget_one(table, device, graph) -> str:
    signature = fused_kernels(to_onnx(graph), device.runtime)[0].signature
    del table.entries[signature]
    return signature


def test_an_unknown_kernel_is_named_and_never_zero(table, device, conv_chain):
    graph = graphs(conv_chain, 1, seed=1)[0]
    missing = forget_one(table, device, graph)
    with pytest.raises(UserInputError) as error:
        LatencyPredictor(table, device).predict([graph])
    assert missing in error.value.message
    assert "hwnas profile" in (error.value.hint or "")


def test_an_unknown_kernel_is_measured_where_the_device_is_and_stays_in_the_table(
    table, device, conv_chain, tmp_path
):
    graph = graphs(conv_chain, 1, seed=1)[0]
    missing = forget_one(table, device, graph)
    path = table.save(tmp_path / "table.json")
    predictor = LatencyPredictor(table, device, on_miss="measure", protocol=QUICK)
    assert predictor.predict([graph])[0].ms > 0
    assert missing in LatencyTable.load(path).entries


def test_a_table_of_another_device_does_not_predict(table, device):
    table.fingerprint = replace(table.fingerprint, cpu="Cray-1")
    with pytest.raises(TableMismatch, match="Cray-1"):
        LatencyPredictor(table, device)


def test_measuring_needs_a_device(table):
    with pytest.raises(UserInputError, match="only be measured on a device"):
        LatencyPredictor(table, on_miss="measure")


def test_damaged_contexts_are_learned_again(table, device, conv_chain):
    table.contexts = json.loads('{"unexpected": 1}')
    predictor = LatencyPredictor(table, device)
    assert predictor.predict(graphs(conv_chain, 1, seed=1))[0].ms > 0


def test_networks_measured_in_a_storm_do_not_spoil_the_calibration(table, device, conv_chain):
    graph = graphs(conv_chain, 1, seed=1)[0]
    before = LatencyPredictor(table, device, space="conv_chain").predict([graph])[0]
    stormy = [
        replace(each, id=f"{each.id}x", ms=2 * each.ms, accepted=0) for each in table.networks
    ]
    table.networks += stormy
    after = LatencyPredictor(table, device, space="conv_chain").predict([graph])[0]
    assert after == before
    table.networks = stormy
    assert LatencyPredictor(table, device).predict([graph])[0].ms > 1.5 * before.ms
