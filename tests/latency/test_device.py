from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas.errors import DeviceError, UserInputError
from hwnas.latency.device import Device, Fingerprint, compare, host_state
from hwnas.latency.runtimes import RUNTIMES


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
