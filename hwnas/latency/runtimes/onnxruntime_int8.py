"""ONNX Runtime on networks that are quantised to int8: QDQ form, static, by its own tools."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from hwnas.errors import DeviceError
from hwnas.latency.runtimes import RUNTIMES, RuntimeConfig
from hwnas.latency.runtimes.onnxruntime import OnnxRuntime, module, random_inputs

if TYPE_CHECKING:
    from onnx import ModelProto

Feeds = Mapping[str, "np.ndarray[Any, Any]"]
#: Quantised models that are kept: the tool takes a second for each.
REMEMBERED = 64
_QUANTISED = {"QuantizeLinear", "QLinearConv", "QLinearMatMul", "DynamicQuantizeLinear"}


@RUNTIMES.register("onnxruntime_int8")
class OnnxRuntimeInt8(OnnxRuntime):
    """ONNX Runtime after static quantisation to int8 (weights int8, activations uint8)."""

    class Config(OnnxRuntime.Config):
        """Settings of `onnxruntime_int8`."""

        per_channel: bool = Field(
            False, description="one scale for each output channel: closer, just as fast to run"
        )
        calibration: Path | None = Field(
            None,
            description=".npy (one input) or .npz (by name) of inputs to calibrate with, samples "
            "first; random without it, which serves timing but not accuracy",
        )
        samples: int = Field(2, ge=1, description="samples to calibrate with")
        least_agreement: float = Field(
            0.5,
            ge=-1,
            le=1,
            description="a quantised network whose outputs correlate less with the original's is "
            "refused",
        )

    precision = "int8"
    config: Config

    def __init__(self, config: RuntimeConfig) -> None:
        super().__init__(config)
        self._done: dict[str, ModelProto] = {}

    def optimise(self, model: ModelProto) -> ModelProto:
        """Quantise a float model, and optimise it."""
        return super().optimise(self.quantise(model))

    def prepare(self, model: ModelProto, *, optimise: bool) -> Callable[[], object]:
        """Run a model as it is, or quantised and optimised."""
        return super().prepare(self.quantise(model) if optimise else model, optimise=optimise)

    def quantise(self, model: ModelProto) -> ModelProto:
        """Return the model in QDQ form; one that is quantised already comes back as it is.

        Raises:
            DeviceError: It cannot be quantised, or its outputs are no longer like the original's.
            UserInputError: The calibration data does not fit the model.
        """
        if any(node.op_type in _QUANTISED for node in model.graph.node):
            return model
        key = hashlib.sha256(model.SerializeToString()).hexdigest()
        if key not in self._done:
            self._done[key] = self._quantise(model)
            for old in list(self._done)[:-REMEMBERED]:
                del self._done[old]
        return self._done[key]

    def _quantise(self, model: ModelProto) -> ModelProto:
        import onnx

        quantisation = _quantisation()
        with tempfile.TemporaryDirectory(prefix="hwnas-") as folder, _quietly():
            path = Path(folder) / "folded.onnx"
            options = self._options(optimise=True)
            # Batch norms are folded first: on its own each would stay in float.
            options.graph_optimization_level = module().GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.optimized_model_filepath = str(path)
            session = self._session(model, options)
            feeds = self._calibration(session)
            try:
                quantisation.quantize_static(
                    _modern(onnx.load(str(path)), feeds[0]),
                    str(path.with_name("int8.onnx")),
                    _Reader(feeds),
                    quant_format=quantisation.QuantFormat.QDQ,
                    per_channel=self.config.per_channel,
                    activation_type=quantisation.QuantType.QUInt8,
                    weight_type=quantisation.QuantType.QInt8,
                )
            except Exception as error:  # the tool raises whatever its parts raise
                raise DeviceError(f"ONNX Runtime cannot quantise the model: {error}") from error
            quantised = onnx.load(str(path.with_name("int8.onnx")))
        found = agreement(session, self._session(quantised, self._options(optimise=True)), feeds)
        if not found >= self.config.least_agreement:
            raise DeviceError(
                f"the quantised model does not compute what the original does: correlation of "
                f"outputs {found:.5f} on the calibration data",
                "give real inputs as `calibration`, or lower `least_agreement`",
            )
        return quantised

    def _calibration(self, session: Any) -> list[Feeds]:
        path = self.config.calibration
        if path is None:
            return [random_inputs(session, seed) for seed in range(self.config.samples)]
        return _read(path, session, self.config.samples)


def agreement(session: Any, quantised: Any, feeds: Sequence[Feeds]) -> float:
    """Return the least correlation of any floating-point output over all inputs."""
    first, second = ([each.run(None, feed) for feed in feeds] for each in (session, quantised))
    found = []
    for before, after in zip(zip(*first, strict=True), zip(*second, strict=True), strict=True):
        old = np.concatenate([np.ravel(each) for each in before])
        new = np.concatenate([np.ravel(each) for each in after])
        if not np.issubdtype(old.dtype, np.floating) or old.size < 2:
            continue
        if not (np.isfinite(old).all() and np.isfinite(new).all()):
            return float("nan")
        if old.std() > 0:
            found.append(float(np.corrcoef(old, new)[0, 1]) if new.std() > 0 else 0.0)
    return min(found, default=1.0)


def _modern(model: ModelProto, feeds: Feeds) -> ModelProto:
    """Weights of old files are inputs too, which the tool's conversion of opsets refuses."""
    inputs = [each for each in model.graph.input if each.name in feeds]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 8)
    return model


class _Reader:
    """Hands calibration data to ONNX Runtime's tool, which asks for this method only."""

    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._feeds: Iterator[Feeds] = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


def _read(path: Path, session: Any, samples: int) -> list[Feeds]:
    from hwnas.errors import UserInputError

    inputs = {each.name: each.shape for each in session.get_inputs()}
    try:
        value = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserInputError(
            f"cannot read the calibration data {path}: {error}", "give a .npy or .npz file"
        ) from error
    arrays = dict(value) if hasattr(value, "files") else {next(iter(inputs)): value}
    if set(arrays) != set(inputs):
        raise UserInputError(
            f"the calibration data {path} has {sorted(arrays)}, the model reads {sorted(inputs)}",
            "give one array for each input",
        )
    for name, shape in inputs.items():
        wanted = tuple(each if isinstance(each, int) else None for each in shape[1:])
        given = arrays[name].shape[1:]
        if len(wanted) != len(given) or any(
            a not in {None, b} for a, b in zip(wanted, given, strict=True)
        ):
            raise UserInputError(
                f"calibration input {name!r} has samples of shape {list(given)}, the model reads "
                f"{list(shape[1:])}",
                "put the samples first",
            )
    count = min(samples, *(len(each) for each in arrays.values()))
    return [{name: each[i : i + 1] for name, each in arrays.items()} for i in range(count)]


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the tool's advice about its own pre-processing from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _quantisation() -> Any:
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise DeviceError(
            f"ONNX Runtime's quantisation cannot be imported: {error}", "pip install onnxruntime"
        ) from error
    return quantization
