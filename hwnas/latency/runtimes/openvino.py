"""OpenVINO, CPU plug-in (measured with 2026.4).

OpenVINO does not give what it executes as ONNX, but its *execution graph* (`get_runtime_model`)
names each fused kernel, the implementation chosen, layouts and shapes; kernels are signed from
that. A kernel of it cannot be run on its own without the reorders that surround it, so kernels are
timed inside whole networks, by OpenVINO's own counters (`PERF_COUNT`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from hwnas.errors import DeviceError
from hwnas.latency.runtimes import RUNTIMES, Inside, Runtime, RuntimeConfig, TensorType

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from hwnas.latency.kernels import Executed, Kernel, Operand

#: Scale of random input, as for ONNX Runtime.
INPUT_SCALE = 0.5
#: Parts of the execution graph that are no work.
_NO_WORK = {"Input", "Const", "Output"}
#: Ordinary layouts of tensors of 0 to 6 dimensions.
_PLAIN = {"", "a", "ab", "abc", "abcd", "abcde", "abcdef", "scalar", "undef"}
_DTYPES = {
    "FP32": 1, "U8": 2, "I8": 3, "I16": 5, "I32": 6, "I64": 7, "BOOL": 9, "FP16": 10, "BF16": 16,
    "f32": 1, "u8": 2, "i8": 3, "i16": 5, "i32": 6, "i64": 7, "boolean": 9, "f16": 10, "f64": 11,
    "u32": 12, "u64": 13, "bf16": 16,
}  # fmt: skip


@RUNTIMES.register("openvino")
class OpenVino(Runtime):
    """OpenVINO in float32, one stream; kernels are timed inside networks."""

    class Config(RuntimeConfig):
        """Settings of `openvino`."""

        provider: str = Field("CPU", description="OpenVINO device")

    is_timed_inside = True
    config: Config

    @property
    def provider(self) -> str:
        """The OpenVINO device."""
        return self.config.provider

    def version(self) -> str:
        """Return OpenVINO's version, after checking that the device exists here."""
        runtime = _module()
        available = runtime.Core().available_devices
        if self.provider not in available:
            raise DeviceError(
                f"OpenVINO has no {self.provider!r} here", f"available: {', '.join(available)}"
            )
        return str(runtime.__version__).split("-", maxsplit=1)[0]

    def kernels(self, model: ModelProto) -> list[Executed]:
        """Return the executed nodes of the execution graph, in their order."""
        model = fold_batch_norms(model)
        compiled = self._compile(model, counters=True)
        return [executed for _, executed in _executed(compiled, model)]

    def prepare(self, model: ModelProto, *, optimise: bool) -> Callable[[], object]:
        """Compile the model, and check that the answer is finite; it is always optimised."""
        request = _request(self._compile(model, counters=False))
        _require_finite(request)
        run: Callable[[], object] = request.infer
        return run

    def inside(self, model: ModelProto) -> Inside:
        """Compile the model with counters.

        They hold the mean since the compilation: see `mean_between`.
        """
        model = fold_batch_norms(model)
        compiled = self._compile(model, counters=True)
        executed = _executed(compiled, model)
        names = [name for name, _ in executed]
        request = _request(compiled)
        runs = 0
        before = [(0, 0.0)] * len(names)

        def run() -> None:
            nonlocal runs
            runs += 1
            request.infer()

        def read() -> Sequence[float]:
            nonlocal before
            means = {
                each.node_name: each.real_time.total_seconds() * 1e6
                for each in request.get_profiling_info()
            }
            now = [(runs, means.get(name, 0.0)) for name in names]
            taken = [mean_between(*each) / 1e3 for each in zip(before, now, strict=True)]
            before = now
            return taken

        return Inside([each.kernel.signature for _, each in executed], run, read)

    def _compile(self, model: ModelProto, *, counters: bool) -> Any:
        runtime = _module()
        settings = {
            "INFERENCE_NUM_THREADS": self.config.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
            "PERF_COUNT": counters,
        }
        if self.provider == "CPU":
            settings["CPU_DENORMALS_OPTIMIZATION"] = True
        try:
            core = runtime.Core()
            loaded = core.read_model(model.SerializeToString())
            if loaded.is_dynamic():
                loaded.reshape(
                    {
                        each: [size.get_length() if size.is_static else 1 for size in shape]
                        for each in loaded.inputs
                        if (shape := each.get_partial_shape()).rank.is_static
                    }
                )
            return core.compile_model(loaded, self.provider, settings)
        except Exception as error:  # the bindings raise a family of types without a common base
            reason = str(error).strip().splitlines()[-1]
            raise DeviceError(f"OpenVINO refuses the model: {reason}") from error


def mean_between(first: tuple[int, float], second: tuple[int, float]) -> float:
    """Return the mean time of the runs between two readings of a counter, in microseconds.

    A counter holds the mean of all runs so far, cut to whole microseconds, of times that were cut
    each: half a microsecond is added for either.

    Args:
        first: Runs, and what the counter said after them.
        second: The same later.
    """
    runs = second[0] - first[0]
    totals = [n * mean + (n / 2 + (n - 1) / 2 if mean > 0 else 0.0) for n, mean in (first, second)]
    return max((totals[1] - totals[0]) / max(runs, 1), 0.0)


def fold_batch_norms(model: ModelProto) -> ModelProto:
    """Fold batch norms into the convolutions before them, as OpenVINO itself does.

    Its own folding forgets the convolutions' names, and with them which node a kernel computes.
    Returns a copy.
    """
    import onnx
    from onnx import numpy_helper

    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    graph = folded.graph
    weights = {each.name: each for each in graph.initializer}
    readers: dict[str, int] = {each.name: 1 for each in graph.output}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    writers = {name: node for node in graph.node for name in node.output}
    gone = []
    for node in graph.node:
        conv = writers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if (
            conv is None
            or conv.op_type != "Conv"
            or readers[node.input[0]] != 1
            or any(name not in weights for name in (*node.input[1:5], *conv.input[1:]))
        ):
            continue
        scale, shift, mean, variance = (
            numpy_helper.to_array(weights[name]) for name in node.input[1:5]
        )
        epsilon = next((each.f for each in node.attribute if each.name == "epsilon"), 1e-5)
        gain = scale / np.sqrt(variance + epsilon)
        kernel = numpy_helper.to_array(weights[conv.input[1]])
        bias = numpy_helper.to_array(weights[conv.input[2]]) if len(conv.input) > 2 else 0.0
        names = [f"{conv.output[0]}/folded_{part}" for part in ("weight", "bias")]
        values = [kernel * gain.reshape(-1, *[1] * (kernel.ndim - 1)), (bias - mean) * gain + shift]
        graph.initializer.extend(
            numpy_helper.from_array(value.astype(kernel.dtype), name)
            for name, value in zip(names, values, strict=True)
        )
        conv.input[1:] = names
        conv.output[0] = node.output[0]
        gone.append(node)
    for node in gone:
        graph.node.remove(node)
    return folded


def _executed(compiled: Any, model: ModelProto) -> list[tuple[str, Executed]]:
    """Return name and kernel of each node that runs, in the order of execution."""
    from hwnas.latency.kernels import Executed

    known = {each.node_name for each in compiled.create_infer_request().get_profiling_info()}
    originals = {name: node for node in model.graph.node for name in (*node.output, node.name)}
    order = {name: index for index, name in enumerate(originals)}
    nodes = compiled.get_runtime_model().get_ordered_ops()
    constant = set()
    found = []
    for node in nodes:
        name, kind = node.get_friendly_name(), _facts(node)["layerType"]
        sources = [each.get_source_output().get_node() for each in node.inputs()]
        if kind == "Const" or (
            sources and all(each.get_friendly_name() in constant for each in sources)
        ):
            constant.add(name)
        if kind in _NO_WORK or name in constant or name not in known:
            continue
        parts = _parts(node, order)
        kernel = _kernel(node, kind, constant, [originals[each] for each in parts])
        first = sources[0] if sources else node
        if kind == "Reorder":
            parts = [*_parts(first, order), first.get_friendly_name(), *parts]
        reads, writes = _layouts(first)[0] in _PLAIN, _layouts(node)[0] in _PLAIN
        found.append((name, Executed(kernel, (*parts, name), reads, writes)))
    return found


def _parts(node: Any, order: Mapping[str, int]) -> list[str]:
    """Return the names of the ONNX nodes that were fused into a node, in the model's order."""
    names = _facts(node).get("originalLayersNames", "").split(",")
    # A convolution that gets its bias later is renamed by the importer.
    plain = {name.removesuffix("/WithoutBiases") for name in names}
    return sorted((name for name in plain if name in order), key=lambda name: order[name])


def _layouts(node: Any) -> list[str]:
    """Return the layout of each output of a node, or one for all of them."""
    return _facts(node).get("outputLayouts", "").split(",")


def _kernel(node: Any, kind: str, constant: set[str], parts: Sequence[NodeProto]) -> Kernel:
    """Sign a node: implementation, layouts, shapes, and the ONNX nodes that are fused in it."""
    from hwnas.latency.kernels import Kernel, Operand, attributes_of

    inputs: list[Operand] = []
    layouts: list[str] = []
    for each in node.inputs():
        source = each.get_source_output()
        owner = source.get_node()
        is_weight = owner.get_friendly_name() in constant
        inputs.append(Operand(_type_of(source), is_weight))
        if not is_weight:
            layouts += _layouts(owner)[source.get_index() :][:1] or _layouts(owner)[-1:]
    attributes: dict[str, Any] = {
        "implementation": _facts(node).get("primitiveType", ""),
        "layouts": [*layouts, *_layouts(node)],
    }
    if parts:
        attributes["fused"] = [each.op_type for each in parts]
        attributes.update(attributes_of(parts[0]))
    return Kernel(
        "openvino", kind, 1, tuple(sorted(attributes.items())), tuple(inputs),
        tuple(_type_of(each) for each in node.outputs()),
    )  # fmt: skip


def _facts(node: Any) -> dict[str, str]:
    """Return what the execution graph says of a node."""
    return {key: _text(value) for key, value in node.get_rt_info().items()}


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))


def _type_of(output: Any) -> TensorType:
    shape = output.get_partial_shape()
    return TensorType(
        _DTYPES.get(output.get_element_type().get_type_name(), 1),
        tuple(each.get_length() if each.is_static else 1 for each in shape),
    )


def _request(compiled: Any) -> Any:
    """Return a request with fixed random input."""
    generator = np.random.default_rng(0)
    request = compiled.create_infer_request()
    for each in compiled.inputs:
        dtype = each.get_element_type().to_dtype()
        shape = tuple(each.get_shape())
        if np.issubdtype(dtype, np.floating):
            value = (generator.standard_normal(shape) * INPUT_SCALE).astype(dtype)
        else:
            value = np.zeros(shape, dtype)
        request.set_tensor(each, _module().Tensor(value))
    return request


def _require_finite(request: Any) -> None:
    try:
        request.infer()
    except Exception as error:
        raise DeviceError(f"OpenVINO cannot run the model: {error}") from error
    for index in range(len(request.model_outputs)):
        value = request.get_output_tensor(index).data
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            raise DeviceError(
                "the model returns values that are not finite, so its time means nothing",
                "check its weights",
            )


def _module() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise DeviceError(
            f"OpenVINO cannot be imported: {error}", "pip install 'hwnas[openvino]'"
        ) from error
    return openvino
