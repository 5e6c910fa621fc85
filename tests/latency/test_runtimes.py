"""Every runtime: what it makes of networks, and that tables of it can be filled and predict."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import DeviceError, HwnasError, UserInputError
from hwnas.export.onnx import to_onnx
from hwnas.latency import inside
from hwnas.latency.decompose import MIN_NETWORKS, Decomposer
from hwnas.latency.device import Device
from hwnas.latency.inside import cover, measure_inside
from hwnas.latency.kernels import Kernel
from hwnas.latency.predictor import LatencyPredictor
from hwnas.latency.profiler import profile
from hwnas.latency.runtimes import RUNTIMES, Inside, RuntimeConfig
from hwnas.latency.table import LatencyTable, default_path
from hwnas.latency.timing import Stopwatch
from hwnas.spaces import SearchSpace
from tests.latency.conftest import QUICK, graphs


def device_of(name: str, **settings) -> Device:
    try:
        return Device.here(name, **settings)
    except DeviceError as error:
        pytest.skip(error.message)


@pytest.fixture(params=RUNTIMES.names())
def each_device(request: pytest.FixtureRequest) -> Device:
    return device_of(request.param)


def signatures(device: Device, graph) -> Counter[str]:
    return Counter(each.kernel.signature for each in device.runtime.kernels(to_onnx(graph)))


def test_kernels_are_named_so_that_they_can_be_read_back(each_device: Device, conv_chain):
    found = signatures(each_device, graphs(conv_chain, 1, seed=0)[0])
    assert found
    for signature in found:
        assert Kernel.parse(signature).signature == signature


def test_unseen_networks_decompose_into_what_the_runtime_executes(each_device: Device, conv_chain):
    decomposer = Decomposer(each_device.runtime, audit_every=0)
    known, unseen = graphs(conv_chain, MIN_NETWORKS, seed=1), graphs(conv_chain, 6, seed=2)
    for graph in known:
        decomposer.learn(graph)
    asked = decomposer.statistics.learned
    for graph in unseen:
        found = decomposer.decompose(graph)
        names = Counter(decomposer.signatures[each] for each in found.kernels)
        assert names == signatures(each_device, graph)
    assert decomposer.statistics.learned - asked < len(unseen)


def test_a_table_can_be_filled_kept_and_predicts_what_was_not_in_it(
    each_device: Device, conv_chain: SearchSpace, tmp_path: Path
):
    table = profile(
        conv_chain, each_device, networks=4, calibration_networks=2, protocol=QUICK, seed=3
    )
    path = table.save(default_path(each_device, tmp_path))
    loaded = LatencyTable.load(path, each_device)
    assert loaded.entries == table.entries
    assert loaded.fingerprint.precision == each_device.runtime.precision
    predictor = LatencyPredictor(loaded, each_device, on_miss="measure", protocol=QUICK)
    for graph, found in zip(
        new := graphs(conv_chain, 3, seed=4), predictor.predict(new), strict=True
    ):
        assert found.ms > 0
        assert found.kernels == signatures(each_device, graph).total()
    assert all(each.ms > 0 for each in loaded.entries.values())


def test_devices_are_named_with_their_settings():
    device = Device.named("onnxruntime:threads=2,provider=CPUExecutionProvider")
    assert device.fingerprint.threads == 2
    assert device.id.endswith("-t2")
    assert Device.named("onnxruntime_int8").id.endswith("-t1-int8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onnxruntime:threads", "expected settings such as key=value"),
        ("onnxruntime:threads=1,threads=2", "twice"),
        ("onnxruntime:thread=2", "thread: Extra inputs"),
        ("onnxruntime:threads=many", "valid integer"),
        ("onnxruntime:threads=4096", "4096 threads on a machine with"),
        ("onnxruntimes", "unknown runtime"),
        ("onnxruntime:provider=NoneExecutionProvider", "has no 'NoneExecutionProvider'"),
    ],
)
def test_a_device_that_cannot_be_is_refused_with_the_reason(text: str, message: str):
    with pytest.raises(HwnasError, match=message):
        Device.named(text)


def test_two_providers_have_two_tables(device: Device, tmp_path: Path):
    other = dataclasses.replace(
        device,
        fingerprint=dataclasses.replace(device.fingerprint, provider="DnnlExecutionProvider"),
    )
    assert default_path(other, tmp_path) != default_path(device, tmp_path)


def test_openvino_folds_batch_norms_as_is_done_for_it(enas_micro: SearchSpace, monkeypatch):
    runtime = device_of("openvino").runtime
    module = __import__("hwnas.latency.runtimes.openvino", fromlist=["x"])
    graph = graphs(enas_micro, 1, seed=5)[0]

    def work() -> Counter[str]:
        """Return the kernels without what only the names in the file tell."""
        kernels = [each.kernel for each in runtime.kernels(to_onnx(graph))]
        kept = {"implementation", "layouts"}
        return Counter(
            dataclasses.replace(
                each, attributes=tuple(pair for pair in each.attributes if pair[0] in kept)
            ).signature
            for each in kernels
        )

    folded = work()
    monkeypatch.setattr(module, "fold_batch_norms", lambda model: model)
    assert work() == folded


def test_a_folded_model_computes_the_same(enas_micro: SearchSpace):
    import onnxruntime

    from hwnas.latency.runtimes.openvino import fold_batch_norms

    model = to_onnx(graphs(enas_micro, 1, seed=6)[0])
    folded = fold_batch_norms(model)
    assert len(folded.graph.node) < len(model.graph.node)
    image = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"input": image})[0]
        for each in (model, folded)
    )
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


def test_what_is_not_installed_says_how_to_install_it(monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *rest, **named):
        if name.split(".")[0] in {"openvino", "ncnn"}:
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DeviceError, match="cannot be imported") as error:
        Device.here("openvino")
    assert "hwnas[openvino]" in (error.value.hint or "")


# --- int8


def test_a_quantised_network_runs_in_integers_and_answers_alike(conv_chain: SearchSpace):
    runtime = device_of("onnxruntime_int8").runtime
    model = to_onnx(graphs(conv_chain, 1, seed=7)[0])
    ops = {each.kernel.op_type for each in runtime.kernels(model)}
    assert "QLinearConv" in ops
    assert not ops & {"Conv", "FusedConv"}
    quantised = runtime.quantise(model)
    assert runtime.quantise(quantised) is quantised
    assert runtime.quantise(model) is quantised  # remembered


def test_scales_and_zero_points_do_not_split_kernels(conv_chain: SearchSpace):
    """Two networks with other weights and other calibration have the same kernels."""
    graph = graphs(conv_chain, 1, seed=8)[0]
    one, other = device_of("onnxruntime_int8"), device_of("onnxruntime_int8", samples=3)
    assert signatures(one, graph) == signatures(other, graph)


def test_a_quantised_network_that_answers_otherwise_is_refused(conv_chain: SearchSpace):
    runtime = device_of("onnxruntime_int8", least_agreement=1.0).runtime
    with pytest.raises(DeviceError, match=r"correlation of outputs 0\.9"):
        runtime.optimise(to_onnx(graphs(conv_chain, 1, seed=9)[0]))


def test_calibration_data_is_read_and_checked(conv_chain: SearchSpace, tmp_path: Path):
    model = to_onnx(graphs(conv_chain, 1, seed=10)[0])
    good, bad = tmp_path / "good.npy", tmp_path / "bad.npy"
    np.save(good, np.random.default_rng(0).random((4, 1, 8, 8), np.float32))
    np.save(bad, np.zeros((4, 3, 8, 8), np.float32))
    device_of("onnxruntime_int8", calibration=good).runtime.optimise(model)
    with pytest.raises(UserInputError, match=r"samples of shape \[3, 8, 8\]"):
        device_of("onnxruntime_int8", calibration=bad).runtime.optimise(model)
    with pytest.raises(UserInputError, match="cannot read the calibration data"):
        device_of("onnxruntime_int8", calibration=tmp_path / "none.npy").runtime.optimise(model)


# --- kernels that are timed inside networks


class Counters:
    """A runtime whose kernels take known times and whose counters are cut to microseconds."""

    is_timed_inside = True
    config = RuntimeConfig()

    def __init__(self, kernels: dict[str, list[tuple[str, float]]]) -> None:
        self.networks = kernels

    def prepare(self, model, *, optimise):
        return lambda: None

    def inside(self, model: str) -> Inside:
        kernels = self.networks[model]
        return Inside(
            [name for name, _ in kernels], lambda: None, lambda: [us / 1e3 for _, us in kernels]
        )


def test_a_kernel_s_time_is_its_mean_over_all_places(monkeypatch):
    runtime = Counters({"a": [("x", 10.0), ("y", 4.0), ("x", 14.0)], "b": [("x", 12.0)]})
    monkeypatch.setattr(inside, "VISIT_MS", 0.0)
    found = measure_inside(
        {name: lambda name=name: name for name in runtime.networks}, Stopwatch(runtime, QUICK)
    )
    assert found["x"].ms == pytest.approx(0.012)
    assert found["y"].ms == pytest.approx(0.004)


def test_few_networks_are_chosen_that_have_all_kernels():
    random.seed(0)
    networks = {str(i): random.sample("abcdefgh", 3) for i in range(40)}
    chosen = cover("abcdefgh", networks)
    assert len(chosen) < 12
    assert set().union(*(networks[each] for each in chosen)) == set("abcdefgh")
    assert min(Counter("".join("".join(networks[each]) for each in chosen)).values()) >= 3


def test_counters_are_read_as_means_of_what_they_cut():
    """A counter adds times cut to microseconds and holds their mean, cut again."""
    from hwnas.latency.runtimes.openvino import mean_between

    generator = np.random.default_rng(0)
    errors = []
    for us in generator.uniform(2, 40, 500):
        cut = np.floor(us + generator.uniform(-0.5, 0.5, 23)).astype(int)
        cut[0] = 500  # the first run is slow, and not asked about
        read = [(runs, int(cut[:runs].sum()) // runs) for runs in (1, 23)]
        errors.append(mean_between(read[0], read[1]) - us)
    assert abs(np.mean(errors)) < 0.1
    assert np.abs(errors).max() < 1.0
