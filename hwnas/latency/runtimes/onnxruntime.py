"""ONNX Runtime, CPU provider (measured with 1.31 and 1.32)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from hwnas.errors import DeviceError
from hwnas.latency.runtimes import RUNTIMES, Runtime, RuntimeConfig, TensorType

if TYPE_CHECKING:
    import onnxruntime
    from onnx import ModelProto, NodeProto

    from hwnas.latency.kernels import Executed, Kernel

#: A name that the exporter gave. The runtime gives others to tensors in its own layout.
_PLAIN_NAME = re.compile(r"^(?:n\d+(?:\.\d+)?|input|logits)$")
#: What is not defined for negative numbers.
_OF_POSITIVE = {"Acosh", "Log", "Pow", "Sqrt"}
#: Scale of random input: large enough for no denormals, small enough for no infinities.
INPUT_SCALE = 0.5


@RUNTIMES.register("onnxruntime")
class OnnxRuntime(Runtime):
    """ONNX Runtime with all its graph optimisations."""

    class Config(RuntimeConfig):
        """Settings of `onnxruntime`."""

        provider: str = Field("CPUExecutionProvider", description="execution provider")

    config: Config

    @property
    def provider(self) -> str:
        """The execution provider."""
        return self.config.provider

    def version(self) -> str:
        """Return ONNX Runtime's version, after checking that the provider exists here."""
        runtime = module()
        available = runtime.get_available_providers()
        if self.provider not in available:
            raise DeviceError(
                f"ONNX Runtime has no {self.provider!r} here", f"available: {', '.join(available)}"
            )
        return str(runtime.__version__)

    def optimise(self, model: ModelProto) -> ModelProto:
        """Return the optimised graph, read back from `optimized_model_filepath`."""
        import onnx

        with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
            path = Path(folder) / "optimised.onnx"
            options = self._options(optimise=True)
            options.optimized_model_filepath = str(path)
            # Prepacking changes how weights are stored in memory, not the graph, and takes time.
            options.add_session_config_entry("session.disable_prepacking", "1")
            self._session(model, options)
            return onnx.load(str(path))

    def kernels(self, model: ModelProto) -> list[Executed]:
        """Return the nodes of the optimised graph, in its order, with those inside sub-graphs."""
        from hwnas.latency._subgraphs import walk
        from hwnas.latency.kernels import Executed

        return [
            Executed(
                kernel,
                _names(node),
                reads_plain=bool(_PLAIN_NAME.match(node.input[0])) if node.input else True,
                writes_plain=bool(_PLAIN_NAME.match(node.output[0])),
            )
            for node, kernel in walk(self.optimise(model), self.run_all)
        ]

    def tensor_types(self, model: ModelProto) -> Mapping[str, TensorType]:
        """Return type and shape of every activation of an optimised model.

        Raises:
            DeviceError: The runtime refuses the model.
        """
        from hwnas.latency._subgraphs import type_of

        return {name: type_of(value) for name, value in self.run_all(model).items()}

    def run_all(
        self, model: ModelProto, feeds: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Run the model once, as it is, and return every tensor.

        ONNX's shape inference does not know the NCHWc operators; a run always knows.

        Args:
            model: The model.
            feeds: Its inputs; random if None.

        Raises:
            DeviceError: The runtime refuses the model.
        """
        import onnx

        known = {each.name for each in model.graph.output}
        names = [name for node in model.graph.node for name in node.output if name]
        exposed = onnx.ModelProto()
        exposed.CopyFrom(model)
        exposed.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in names if name not in known
        )
        options = self._options(optimise=False)
        options.add_session_config_entry("session.disable_prepacking", "1")
        session = self._session(exposed, options)
        if feeds is None:
            feeds = random_inputs(session)
        fetched = [each.name for each in session.get_outputs()]
        try:
            values = session.run(fetched, dict(feeds))
        except Exception as error:
            raise DeviceError(
                f"ONNX Runtime cannot run the optimised model: {error}",
                "sizes that the file leaves open are taken as 1; give others with --shape",
            ) from error
        return {**feeds, **dict(zip(fetched, values, strict=True))}

    def prepare_kernel(self, kernel: Kernel) -> Callable[[], object]:
        """Run a kernel on its own; roots and logarithms of positive numbers."""
        return self._prepare(
            kernel.to_model(), optimise=False, positive=kernel.op_type in _OF_POSITIVE
        )

    def prepare(self, model: ModelProto, *, optimise: bool) -> Callable[[], object]:
        """Create a session, bind its inputs and outputs, and check that the answer is finite."""
        return self._prepare(model, optimise=optimise)

    def _prepare(
        self, model: ModelProto, *, optimise: bool, positive: bool = False
    ) -> Callable[[], object]:
        runtime = module()
        session = self._session(model, self._options(optimise=optimise))
        feeds = random_inputs(session)
        if positive:
            feeds = {name: np.asarray(np.abs(value)) for name, value in feeds.items()}
        try:
            outputs = session.run(None, feeds)
        except Exception as error:
            raise DeviceError(
                f"ONNX Runtime cannot run the model: {error}",
                "sizes that the file leaves open are taken as 1; give others with --shape",
            ) from error
        _require_finite(outputs)
        binding = session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, runtime.OrtValue.ortvalue_from_numpy(value))
        for info, value in zip(session.get_outputs(), outputs, strict=True):
            binding.bind_ortvalue_output(
                info.name, runtime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
            )
        run_with_iobinding = session.run_with_iobinding

        def run() -> object:
            return run_with_iobinding(binding)

        return run

    def _options(self, *, optimise: bool) -> onnxruntime.SessionOptions:
        runtime = module()
        options = runtime.SessionOptions()
        level = runtime.GraphOptimizationLevel
        options.graph_optimization_level = (
            level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
        )
        options.intra_op_num_threads = self.config.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what it refuses is raised, and said once
        # Only the first session of a process decides about denormals: every session asks.
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        # With one thread there is nobody to wait for; with more, to be woken takes longer than most
        # kernels do.
        spins = "0" if self.config.threads == 1 else "1"
        options.add_session_config_entry("session.intra_op.allow_spinning", spins)
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        return options

    def _session(
        self, model: ModelProto, options: onnxruntime.SessionOptions
    ) -> onnxruntime.InferenceSession:
        try:
            return module().InferenceSession(
                model.SerializeToString(), options, providers=[self.provider]
            )
        except Exception as error:  # the bindings raise a family of types without a common base
            raise DeviceError(f"ONNX Runtime refuses the model: {error}") from error


def _names(node: NodeProto) -> tuple[str, ...]:
    """Return the names by which a node of the optimised graph is known, the best first."""
    first = node.name
    if node.op_type == "ReorderInput":
        first = node.input[0]
    elif node.op_type == "ReorderOutput":
        first = node.output[0]
    return (first, *node.output, *node.input)


def module() -> Any:
    """Return the package `onnxruntime`.

    Raises:
        DeviceError: It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(
            f"ONNX Runtime cannot be imported: {error}", "pip install onnxruntime"
        ) from error
    return onnxruntime


def random_inputs(
    session: onnxruntime.InferenceSession, seed: int = 0
) -> dict[str, np.ndarray[Any, Any]]:
    """Return random floating-point inputs and zeros for others; unknown sizes are taken as 1.

    Raises:
        DeviceError: An input has a type that is not handled.
    """
    generator = np.random.default_rng(seed)
    feeds = {}
    for info in session.get_inputs():
        shape = [each if isinstance(each, int) else 1 for each in info.shape]
        dtype = _DTYPES.get(info.type)
        if dtype is None:
            raise DeviceError(f"input {info.name!r} has the type {info.type}, which is not handled")
        if np.issubdtype(dtype, np.floating):
            value = np.asarray(generator.standard_normal(shape) * INPUT_SCALE)
            feeds[info.name] = value.astype(dtype)
        else:
            feeds[info.name] = np.zeros(shape, dtype)
    return feeds


_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def _require_finite(outputs: Iterable[Any]) -> None:
    for value in outputs:
        if (
            isinstance(value, np.ndarray)
            and np.issubdtype(value.dtype, np.floating)
            and not np.isfinite(value).all()
        ):
            raise DeviceError(
                "the model returns values that are not finite, so its time means nothing",
                "check its weights",
            )
