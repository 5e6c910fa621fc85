from __future__ import annotations

import os
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas.errors import DeviceError, UserInputError
from hwnas.latency.device import Device, Fingerprint, compare, host_state
from hwnas.latency.runtimes import RUNTIMES
from hwnas.latency.table import default_path


def test_the_id_can_be_a_file_name_and_says_how_many_threads(device: Device):
    assert re.fullmatch(r"[a-z0-9.-]+", device.id)
    assert device.id.endswith("-t1")
    assert Device.here().id == device.id


def test_a_fingerprint_survives_json(device: Device):
    assert Fingerprint.from_json(device.fingerprint.to_json()) == device.fingerprint


def test_equal_fingerprints_have_no_difference_and_others_do(device: Device):
    here = device.fingerprint
    assert compare(here, here) == []
    assert compare(replace(here, runtime_version="0.1"), here) == [
        f"runtime_version is '0.1' in the table and {here.runtime_version!r} here"
    ]


def test_an_unknown_runtime_is_refused_with_the_nearest_names():
    with pytest.raises(UserInputError, match="unknown runtime 'onnxrutime'") as error:
        Device.here("onnxrutime")
    assert "onnxruntime" in (error.value.hint or "")


def test_an_unknown_provider_is_refused_with_those_that_exist():
    with pytest.raises(DeviceError, match="AbacusExecutionProvider") as error:
        Device.here(provider="AbacusExecutionProvider")
    assert "CPUExecutionProvider" in (error.value.hint or "")


def test_the_state_of_the_host_can_be_recorded():
    assert len(host_state()["load_average"]) == 3


def test_every_runtime_describes_itself():
    for name, _ in RUNTIMES.items():
        assert RUNTIMES.describe(name)


def model_of(op_type: str, weight: float = 1.0):
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [numpy_helper.from_array(np.full(4, weight, np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_a_model_that_the_runtime_refuses_is_a_device_error(device: Device):
    for method in (device.runtime.optimise, device.runtime.tensor_types):
        with pytest.raises(DeviceError, match="refuses the model"):
            method(model_of("Frobnicate"))


def test_a_model_whose_answer_is_not_finite_is_not_timed(device: Device):
    with pytest.raises(DeviceError, match="not finite"):
        device.runtime.prepare(model_of("Div", weight=0.0), optimise=False)


two_threads = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one hardware thread only")


@two_threads
def test_a_device_is_named_with_its_settings():
    found = Device.named("onnxruntime:threads=2,provider=CPUExecutionProvider")
    assert (found.fingerprint.threads, found.fingerprint.provider) == (2, "CPUExecutionProvider")
    assert found.id.endswith("-t2")
    assert Device.named("onnxruntime: threads=2").fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("onnxrutime:threads=2", "unknown runtime 'onnxrutime'", "onnxruntime"),
        ("onnxruntime:threads=0", "threads: .* greater than or equal to 1", "threads"),
        ("onnxruntime:threads=two", "threads: .* integer", "threads"),
        ("onnxruntime:thread=2", "thread: ", "settings of onnxruntime: threads, provider"),
        ("onnxruntime:threads", "expected settings such as key=value, got 'threads'", "="),
        ("onnxruntime:threads=", "expected settings such as key=value, got 'threads='", "="),
        ("onnxruntime:threads=1,threads=2", "sets 'threads' twice", "once"),
        ("onnxruntime:threads=4096", "4096 threads on a machine with", "at most"),
    ],
)
def test_a_device_that_is_named_wrongly_is_refused_with_a_way_out(name, message, hint):
    with pytest.raises(UserInputError, match=message) as error:
        Device.named(name)
    assert hint in (error.value.hint or "")


def test_a_provider_that_is_not_here_is_a_device_error():
    with pytest.raises(DeviceError, match="AbacusExecutionProvider") as error:
        Device.named("onnxruntime:provider=AbacusExecutionProvider")
    assert "CPUExecutionProvider" in (error.value.hint or "")


@pytest.mark.parametrize(("runtime", "module"), [("openvino", "openvino")])
def test_a_runtime_that_is_not_installed_says_how_to_get_it(monkeypatch, runtime, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DeviceError, match="cannot be imported") as error:
        Device.named(runtime)
    assert f"hwnas[{runtime}]" in (error.value.hint or "")


def test_tables_of_another_provider_have_a_file_of_their_own(device: Device, tmp_path):
    other = replace(
        device, fingerprint=replace(device.fingerprint, provider="DnnlExecutionProvider")
    )
    assert default_path(device, tmp_path).name == "onnxruntime.json"
    assert default_path(other, tmp_path).name == "onnxruntime-dnnl.json"


@pytest.mark.parametrize("name", RUNTIMES.names())
def test_the_clock_of_every_runtime_depends_on_its_threads(name):
    assert RUNTIMES.get(name).clock(2) == "wall"
    assert RUNTIMES.get(name).clock(1) in {"thread", "wall"}
