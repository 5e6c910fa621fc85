"""Predicts the latency of graphs from a table, with an interval and without guessing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

import numpy as np

from hwnas import _core
from hwnas.errors import UserInputError
from hwnas.export.onnx import to_onnx
from hwnas.graph import Graph
from hwnas.latency import calibration
from hwnas.latency.calibration import Calibration, NetworkSample, streamed_mib
from hwnas.latency.decompose import Decomposer, Decomposition
from hwnas.latency.device import Device
from hwnas.latency.kernels import Kernel
from hwnas.latency.profiler import Network, decomposer_state, measure_kernels
from hwnas.latency.table import LatencyTable, NetworkEntry, short_id
from hwnas.latency.timing import Protocol, Stopwatch

if TYPE_CHECKING:
    from onnx import ModelProto

Integers: TypeAlias = "np.ndarray[Any, np.dtype[np.int32]]"
Offsets: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

#: The best networks are used alone for a calibration if there are so many.
ENOUGH_NETWORKS = 12


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted latency.

    Attributes:
        ms: Milliseconds on an idle device: what `Measurement.ms` is.
        low_ms: Lower end of the interval.
        high_ms: Upper end; infinite where too few networks were measured to say.
        coverage: Share of new networks that the interval is made to contain.
        kernels: How many kernels the network runs.
    """

    ms: float
    low_ms: float
    high_ms: float
    coverage: float
    kernels: int


@dataclass(frozen=True, slots=True)
class KernelShare:
    """One kernel's part in a prediction.

    Attributes:
        node: The node of the expanded graph that it computes.
        signature: The kernel.
        ms: Its calibrated contribution.
        measured_ms: Its own time in the table, overhead of the call removed.
    """

    node: int
    signature: str
    ms: float
    measured_ms: float


class LatencyPredictor:
    """Sums a table over the kernels that a device's runtime makes of a graph.

    Args:
        table: The measurements. It grows when kernels are measured on a miss.
        device: The device the table belongs to: asked about graphs with unknown nodes. None
            restricts predictions to graphs whose nodes are all known.
        space: Name of the space the graphs come from: its own networks calibrate if there are
            enough of them, else all do.
        on_miss: ``measure`` a kernel that the table does not have, or raise an ``error``.
        coverage: Share of new networks that intervals are made to contain.
        protocol: How to time on a miss.

    Raises:
        TableMismatch: The table belongs to another device.
    """

    def __init__(
        self,
        table: LatencyTable,
        device: Device | None = None,
        *,
        space: str | None = None,
        on_miss: Literal["measure", "error"] = "error",
        coverage: float = 0.9,
        protocol: Protocol | None = None,
    ) -> None:
        if device is not None:
            device.require(table.fingerprint, f"latency table {table.path or '(not saved)'}")
        elif on_miss == "measure":
            raise UserInputError("kernels can only be measured on a device", "give the device")
        if not 0 < coverage < 1:
            raise UserInputError(f"coverage is a share between 0 and 1, not {coverage}")
        self.table = table
        self.device = device
        self.coverage = coverage
        self.calibration = calibrate(table, space)
        self._on_miss = on_miss
        self._protocol = protocol
        runtime = device.runtime if device is not None else None
        self.decomposer = Decomposer(runtime, decomposer_state(table))
        self._parsed: dict[str, Kernel] = {}
        self._effective = np.empty(0, np.float64)
        self._own = np.empty(0, np.float64)
        self._weight_mib = np.empty(0, np.float64)

    def predict(self, graphs: Sequence[Graph]) -> list[Prediction]:
        """Predict the latency of graphs.

        Nothing is exported for graphs whose nodes are all known.

        Raises:
            UserInputError: A kernel is not in the table and may not be measured; it is named.
            DeviceError: The runtime refuses a graph or a kernel.
        """
        if not graphs:
            return []
        parts = [self.decomposer.decompose(graph) for graph in graphs]
        numbers, offsets = self._flatten(parts)
        self._require_times(numbers, graphs, parts)
        correction = self.calibration
        streamed = streamed_mib(
            _core.sum_latencies(self._weight_mib, numbers, offsets), correction.cache_mib
        )
        sums = _core.sum_latencies(self._effective, numbers, offsets)
        sums += correction.constant_ms + correction.per_streamed_mib_ms * streamed
        return [
            self._prediction(float(ms), len(part.kernels))
            for ms, part in zip(sums, parts, strict=True)
        ]

    def predict_kernels(
        self, kernels: Sequence[Kernel], model: ModelProto | None = None
    ) -> Prediction:
        """Predict the latency of any network from the kernels that it runs.

        Args:
            kernels: What `hwnas.latency.kernels.fused_kernels` returns for an ONNX file.
            model: The file: a runtime may need it to time kernels that are missing.

        Raises:
            UserInputError: A kernel is not in the table and may not be measured; it is named.
            DeviceError: A kernel cannot be measured on its own.
        """
        counts = Counter(each.signature for each in kernels)
        unknown = sorted(each for each in counts if each not in self.table.entries)
        if unknown:
            networks = {} if model is None else {"model": Network(unknown, lambda: model)}
            self._measure(unknown, networks)
        return self.predict_counts(counts)

    def predict_counts(self, counts: Mapping[str, int]) -> Prediction:
        """Predict the latency of a network from how often it runs each kernel, by signature.

        Raises:
            UserInputError: A kernel is not in the table; it is named.
        """
        unknown = sorted(each for each in counts if each not in self.table.entries)
        if unknown:
            self._refuse(unknown)
        for each in counts.keys() - self._parsed.keys():
            self._parsed[each] = Kernel.parse(each)
        own_ms = {each: self.table.ms_of(each) for each in counts}
        sample = _sample_of(counts, self._parsed, own_ms)
        return self._prediction(self.calibration.predict(sample), sum(counts.values()))

    def explain(self, graph: Graph) -> list[KernelShare]:
        """Return what each kernel contributes, the most expensive first.

        The contributions and the calibration's constant add up to the prediction.

        Raises:
            As `predict`.
        """
        part = self.decomposer.decompose(graph)
        numbers, _ = self._flatten([part])
        self._require_times(numbers, [graph], [part])
        weight_mib = self._weight_mib[numbers]
        total = np.array([weight_mib.sum()])
        streamed = float(streamed_mib(total, self.calibration.cache_mib)[0])
        # Streaming costs each kernel in proportion to its weights.
        per_mib = self.calibration.per_streamed_mib_ms * streamed / max(float(total[0]), 1e-12)
        shares = [
            KernelShare(
                node,
                self.decomposer.signatures[number],
                float(self._effective[number] + per_mib * self._weight_mib[number]),
                float(self._own[number]),
            )
            for number, node in zip(part.kernels, part.nodes, strict=True)
        ]
        return sorted(shares, key=lambda share: -share.ms)

    def save(self) -> None:
        """Write what was learned and measured since the table was loaded, if it has a path."""
        self.table.contexts = asdict(self.decomposer.state())
        if self.table.path is not None:
            self.table.save()

    def _prediction(self, ms: float, kernels: int) -> Prediction:
        margin = self.calibration.margin(self.coverage)
        return Prediction(
            ms=ms,
            low_ms=ms * max(0.0, 1 - margin),
            high_ms=ms * (1 + margin),
            coverage=self.coverage,
            kernels=kernels,
        )

    def _flatten(self, parts: Sequence[Decomposition]) -> tuple[Integers, Offsets]:
        """Return the kernels of all graphs, one after the other, and where each starts."""
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part.kernels) for part in parts], out=offsets[1:])
        numbers = np.fromiter(
            (number for part in parts for number in part.kernels), np.int32, int(offsets[-1])
        )
        return numbers, offsets

    def _require_times(
        self, needed: Integers, graphs: Sequence[Graph], parts: Sequence[Decomposition]
    ) -> None:
        """Bring the arrays up to date and see that all needed kernels are measured."""
        if len(self._own) < len(self.decomposer.signatures):
            self._refresh()
        unknown = sorted({int(each) for each in needed[np.isnan(self._own[needed])]})
        if unknown:
            signatures = self.decomposer.signatures
            missing = set(unknown)
            networks = {
                str(index): Network([signatures[each] for each in found], partial(to_onnx, graph))
                for index, (graph, part) in enumerate(zip(graphs, parts, strict=True))
                if (found := missing.intersection(part.kernels))
            }
            self._measure([signatures[each] for each in unknown], networks)
            self._refresh()

    def _refresh(self) -> None:
        """Look all kernels of the decomposer up in the table: `[K]` each."""
        kernels = [Kernel.parse(signature) for signature in self.decomposer.signatures]
        own = [self.table.ms_of(signature) for signature in self.decomposer.signatures]
        self._own = np.array(own, np.float64)
        self._effective = np.array(
            [
                self.calibration.kernel_ms(kernel.family, ms)
                for kernel, ms in zip(kernels, own, strict=True)
            ],
            np.float64,
        )
        self._weight_mib = np.array([each.weight_bytes / 2**20 for each in kernels], np.float64)

    def _measure(self, signatures: Sequence[str], networks: Mapping[str, Network]) -> None:
        if self._on_miss == "error" or self.device is None or not self.device.is_here:
            self._refuse(signatures)
        overhead_ms = self.table.overhead_ms
        stopwatch = Stopwatch(self.device.runtime, self._protocol)
        measure_kernels(signatures, self.table, stopwatch, networks=networks)
        # The calibration was fitted with the old one; a search that is resumed must refit the same.
        self.table.overhead_ms = overhead_ms or self.table.overhead_ms
        self.save()

    def _refuse(self, signatures: Sequence[str]) -> NoReturn:
        more = f" and {len(signatures) - 3} more" if len(signatures) > 3 else ""
        raise UserInputError(
            f"the latency table has no measurement of {len(signatures)} kernel(s): "
            f"{'; '.join(signatures[:3])}{more}",
            "measure them with: hwnas profile"
            if self.device is None or self.device.is_here
            else "its device is not this machine: send it a larger bundle, with "
            "hwnas profile --bundle FILE --samples N",
        )


def calibrate(table: LatencyTable, space: str | None = None) -> Calibration:
    """Fit the calibration of a table.

    Args:
        table: The table with its measured networks.
        space: Prefer the networks of this space.
    """
    signatures = {short_id(signature): signature for signature in table.entries}
    kernels = {each: Kernel.parse(text) for each, text in signatures.items()}
    own_ms = {each: table.ms_of(text) for each, text in signatures.items()}
    # A network whose kernels are not all in the table says nothing about their sum.
    usable = [each for each in table.networks if all(k in kernels for k in each.kernels)]
    samples = [
        _sample_of(each.kernels, kernels, own_ms, each.ms) for each in _choose(usable, space)
    ]
    return calibration.fit(samples, table.overhead_ms, table.fingerprint.cache_kib / 1024)


def _choose(networks: Sequence[NetworkEntry], space: str | None) -> Sequence[NetworkEntry]:
    """Return the networks to calibrate with: clean ones before others, own before foreign.

    Times that were taken while the machine was never calm are too long, by a quarter and more: they
    are used only if there is nothing else.
    """
    clean = [each for each in networks if each.accepted]
    for candidates in (
        [each for each in clean if each.space == space],
        clean,
        [each for each in networks if each.space == space],
    ):
        if len(candidates) >= ENOUGH_NETWORKS:
            return candidates
    return networks


def _sample_of(
    counts: Mapping[str, int],
    kernels: Mapping[str, Kernel],
    own_ms: Mapping[str, float],
    ms: float = 0.0,
) -> NetworkSample:
    """Sum up a network's kernels; all three mappings have the same kind of key."""
    sums: dict[str, float] = {}
    weight_bytes = 0
    for each, count in counts.items():
        family = kernels[each].family
        sums[family] = sums.get(family, 0.0) + count * own_ms[each]
        weight_bytes += count * kernels[each].weight_bytes
    return NetworkSample(sums, sum(counts.values()), weight_bytes / 2**20, ms)
