"""ONNX files that nobody here wrote: control flow, open sizes, other opsets, external data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas.errors import DeviceError, UserInputError
from hwnas.latency.device import Device
from hwnas.latency.files import (
    kernels_of_file,
    open_sizes,
    parse_shapes,
    read_model,
    with_shapes,
)
from hwnas.latency.kernels import Kernel, fused_kernels

FLOAT = TensorProto.FLOAT
ELSEWHERE = Path(__file__).parents[3] / "shared" / "data" / "onnx"


def info(name: str, shape, dtype: int = FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def model_of(nodes, inputs, outputs, weights=(), opset: int = 17):
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(v, n) for n, v in weights]
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=min(9, 3 + opset // 3))


def conv(opset: int = 17, shape=("N", 3, 8, 8)):
    weight = np.ones((4, 3, 3, 3), np.float32)
    return model_of(
        [helper.make_node("Conv", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        [info("x", shape)], [info("y", ("N", 4, 6, 6))], [("w", weight)], opset,
    )  # fmt: skip


def branch(name: str, op: str):
    return helper.make_graph([helper.make_node(op, ["x"], [name])], name, [], [info(name, (4,))])


def with_if():
    node = helper.make_node(
        "If", ["c"], ["y"], then_branch=branch("a", "Erf"), else_branch=branch("b", "Tanh")
    )
    return model_of(
        [helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
         helper.make_node("Greater", ["m", "big"], ["c"]), node],
        [info("x", (4,))], [info("y", (4,))], [("big", np.array(1e6, np.float32))],
    )  # fmt: skip


def with_scan(steps: int):
    body = helper.make_graph(
        [helper.make_node("MatMul", ["s", "w"], ["p"]), helper.make_node("Add", ["p", "e"], ["t"]),
         helper.make_node("Sin", ["t"], ["o"])],
        "body", [info("s", (1, 4)), info("e", (1, 4))], [info("t", (1, 4)), info("o", (1, 4))],
    )  # fmt: skip
    node = helper.make_node("Scan", ["s0", "xs"], ["last", "all"], body=body, num_scan_inputs=1)
    return model_of(
        [node],
        [info("s0", (1, 4)), info("xs", (steps, 1, 4))],
        [info("last", (1, 4)), info("all", (steps, 1, 4))],
        [("w", np.full((4, 4), 0.1, np.float32))],
    )


def with_loop(trips: int | None):
    """A loop of `trips`; without it, one that its own condition ends."""
    end = [helper.make_node("Identity", ["c"], ["c2"])]
    if trips is None:
        end = [helper.make_node("ReduceMax", ["t"], ["m"], keepdims=0),
               helper.make_node("Less", ["m", "big"], ["c2"])]  # fmt: skip
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "one"], ["t"]), *end],
        "body",
        [info("i", (), TensorProto.INT64), info("c", (), TensorProto.BOOL), info("s", (4,))],
        [info("c2", (), TensorProto.BOOL), info("t", (4,))],
    )
    node = helper.make_node("Loop", ["m0" if trips else "", "c0", "x"], ["y"], body=body)
    weights = [("one", np.full(4, 1.0, np.float32)), ("c0", np.array(True)),
               ("big", np.array(5.0, np.float32)),
               ("m0", np.array(trips or 0, np.int64))]  # fmt: skip
    return model_of([node], [info("x", (4,))], [info("y", (4,))], weights)


def ops(model, device: Device) -> Counter[str]:
    return Counter(each.op_type for each in fused_kernels(model, device.runtime))


def test_the_branch_that_is_taken_counts_and_the_other_does_not(device: Device):
    found = ops(with_if(), device)
    assert found["Tanh"] == 1
    assert found["Erf"] == 0
    assert found["If"] == 1


def test_what_a_scan_repeats_counts_as_often_as_it_has_steps(device: Device):
    found = ops(with_scan(7), device)
    assert found["Scan"] == 1
    assert found["Sin"] == found["MatMul"] + found["Gemm"] + found["FusedMatMul"] == 7


def test_weights_from_outside_a_body_are_weights_inside_it(device: Device):
    kernels = fused_kernels(with_scan(2), device.runtime)
    (product,) = {each for each in kernels if each.op_type in {"MatMul", "Gemm", "FusedMatMul"}}
    assert product.inputs[1] is not None
    assert product.inputs[1].is_weight


def test_a_counted_loop_counts_and_one_without_a_count_is_named_as_unknown(device: Device):
    found = ops(with_loop(5), device)
    assert found["Add"] == 5
    kernels = fused_kernels(with_loop(None), device.runtime)
    (loop,) = [each for each in kernels if each.op_type == "Loop"]
    with pytest.raises(DeviceError, match="Loop cannot be measured on its own"):
        loop.to_model()


@pytest.mark.parametrize(
    "model", [with_if(), with_scan(7), with_loop(5)], ids=["If", "Scan", "Loop"]
)
def test_control_flow_can_be_measured_without_what_it_runs(model, device: Device):
    kernels = fused_kernels(model, device.runtime)
    for each in kernels:
        again = Kernel.parse(each.signature)
        assert again.signature == each.signature
        device.runtime.prepare_kernel(again)()


@pytest.mark.parametrize("opset", range(7, 23))
def test_opsets_from_7_to_22_are_read(opset: int, device: Device, tmp_path: Path):
    path = tmp_path / "model.onnx"
    onnx.save(conv(opset), str(path))
    counts, left_open = kernels_of_file(path, device, folder=tmp_path)
    assert sum(counts.values()) >= 1
    assert left_open == ["x [N,3,8,8]"]


def test_sizes_that_the_file_leaves_open_can_be_given(device: Device):
    model = with_shapes(conv(), {"x": (5, 3, 8, 8)})
    assert open_sizes(model) == []
    assert any("[5,4,6,6]" in each.signature for each in fused_kernels(model, device.runtime))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1,)}, "no input 'z'"),
        ({"x": (1, 3, 8)}, r"is \[\?,3,8,8\] in the file"),
        ({"x": (1, 4, 8, 8)}, r"not \[1, 4, 8, 8\]"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(shapes, message: str):
    with pytest.raises(UserInputError, match=message):
        with_shapes(conv(), shapes)


def test_shapes_are_read_from_the_command_line():
    assert parse_shapes(["a:0=1,2", "b="]) == {"a:0": (1, 2), "b": ()}
    for wrong in (["a"], ["a=x"], ["=1"], ["a=1", "a=2"], ["a=-1"]):
        with pytest.raises(UserInputError, match="--shape"):
            parse_shapes(wrong)


def test_a_file_is_asked_about_once(device: Device, tmp_path: Path, monkeypatch):
    path = tmp_path / "model.onnx"
    onnx.save(conv(), str(path))
    first = kernels_of_file(path, device, folder=tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    monkeypatch.setattr(type(device.runtime), "kernels", None)
    assert kernels_of_file(path, device, folder=tmp_path / "kept") == first
    monkeypatch.undo()
    kept.write_text("{damaged")
    assert kernels_of_file(path, device, folder=tmp_path / "kept") == first
    other = kernels_of_file(path, device, {"x": (2, 3, 8, 8)}, folder=tmp_path / "kept")
    assert other != first
    assert kernels_of_file(path, device, folder=Path("/proc/nowhere")) == first


def test_weights_in_a_file_of_their_own_are_read_and_missed(device: Device, tmp_path: Path):
    path = tmp_path / "model.onnx"
    onnx.save(conv(), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    counts, _ = kernels_of_file(path, device, folder=tmp_path / "kept")
    assert counts
    assert not (tmp_path / "kept").exists()  # the hash does not see the weights' file
    (tmp_path / "w.bin").unlink()
    with pytest.raises(UserInputError, match="in a file of their own"):
        read_model(path)


def test_what_is_no_model_is_refused(tmp_path: Path, device: Device):
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    for path in (empty, tmp_path / "none.onnx"):
        with pytest.raises(UserInputError):
            kernels_of_file(path, device, folder=tmp_path)


def elsewhere() -> list[Path]:
    return sorted(ELSEWHERE.glob("*.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("path", elsewhere() or [None], ids=lambda p: p.stem[:30] if p else "none")
def test_networks_written_elsewhere_are_taken_apart_and_each_kernel_runs(path, device: Device):
    if path is None:
        pytest.skip(f"no networks in {ELSEWHERE}")
    manifest = json.loads((ELSEWHERE / "manifest.json").read_text())
    (about,) = [each for each in manifest if each["file"] == path.name]
    model = read_model(path, about["run_inputs"])
    for kernel in set(fused_kernels(model, device.runtime)):
        again = Kernel.parse(kernel.signature)
        assert again == kernel
        device.runtime.prepare_kernel(again)()
