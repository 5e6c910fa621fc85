"""What networks cost on the device: predicted from a table, and measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.errors import UserInputError
from hwnas.graph.architecture import Architecture
from hwnas.latency.kernels import Kernel
from hwnas.latency.predictor import LatencyPredictor, Prediction
from hwnas.latency.table import LatencyTable
from hwnas.study.context import Context
from hwnas.study.tables import describe, protocol_of, summarise

if TYPE_CHECKING:
    from onnx import ModelProto

    from hwnas.graph import Graph
    from hwnas.latency.predictor import KernelShare
    from hwnas.latency.timing import Measurement
    from hwnas.study.journal import Journal


#: A prediction as a JSON value.
Record = dict[str, float | None]


class Pricing:
    """Predicts the latency of a space's networks; each architecture once.

    Args:
        context: The parts of the run.
        table: The latency table; kernels that it lacks are measured and added.
    """

    def __init__(self, context: Context, table: LatencyTable) -> None:
        self.context = context
        self.table = table
        self._predictor = LatencyPredictor(
            table,
            context.device,
            space=context.config.space.name,
            on_miss="measure",
            protocol=protocol_of(context),
        )
        self._known: dict[Architecture, Prediction] = {}

    def predict(self, architectures: Sequence[Architecture]) -> list[Prediction]:
        """Return the predictions of architectures, in their order.

        Raises:
            DeviceError: The runtime refuses a network.
        """
        new = [each for each in dict.fromkeys(architectures) if each not in self._known]
        graphs = [self.context.deployed.graph(each) for each in new]
        self._known.update(zip(new, self._predictor.predict(graphs), strict=True))
        return [self._known[each] for each in architectures]

    def ms(self, architectures: Sequence[Architecture]) -> list[float]:
        """Return predicted milliseconds."""
        return [each.ms for each in self.predict(architectures)]

    def records(self, architectures: Sequence[Architecture]) -> list[Record | None]:
        """Return the predictions as JSON values; an interval without end becomes null."""
        return [
            {
                "ms": each.ms,
                "low_ms": finite(each.low_ms),
                "high_ms": finite(each.high_ms),
                "coverage": each.coverage if math.isfinite(each.high_ms) else None,
            }
            for each in self.predict(architectures)
        ]

    @property
    def can_measure(self) -> bool:
        """Whether the device is this machine: elsewhere nothing can be measured."""
        return self.context.device.is_here

    def measure(self, models: Mapping[str, ModelProto]) -> dict[str, Measurement]:
        """Measure whole models on the device, in turns."""
        from hwnas.latency.profiler import measure_models
        from hwnas.latency.timing import Stopwatch
        from hwnas.study.tables import protocol_of

        device = self.context.device
        optimised = {name: device.runtime.optimise(each) for name, each in models.items()}
        stopwatch = Stopwatch(device.runtime, protocol_of(self.context))
        return measure_models(optimised, device, stopwatch)

    def kernels(self, architecture: Architecture) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """Return where a network's milliseconds go.

        Returns:
            The kernels, most expensive first, as JSON values of `KernelTime`; and the share of
            each node of the graph, by its index as text.
        """
        graph = self.context.deployed.graph(architecture).inference()
        found = self._predictor.explain(graph)
        nodes = graph.expanded().nodes
        kernels = [
            {
                "op": Kernel.parse(each.signature).op_type,
                "signature": each.signature,
                "name": nodes[each.node].weights or nodes[each.node].op.kind,
                "ms": each.ms,
                "is_measured": True,
            }
            for each in found
        ]
        return kernels, _shares(graph, found)

    def save(self, folder: Path) -> dict[str, Any]:
        """Return the journal's record of the table that the run works with."""
        table, made = self.table, summarise(self.table)
        fingerprint = table.fingerprint
        last = table.provenance[-1] if table.provenance else {}
        path = table.path
        is_inside = path is not None and path.parent == folder
        return {
            "summary": made.summary,
            "provenance": {
                "path": str(path.name if path is not None and is_inside else path),
                "device_id": self.context.device.id,
                "runtime": fingerprint.runtime,
                "runtime_version": fingerprint.runtime_version,
                "created": last.get("date"),
                "entries": made.entries,
                "median_spread": made.median_spread,
                "note": describe(table),
            },
        }

    def train_time_predictor(
        self, journal: Journal
    ) -> Callable[[Sequence[Architecture]], Sequence[float]] | None:
        """Return what predicts a child's training time, where it has a budget."""
        if self.context.config.objective.max_train_time_s is None:
            return None
        from hwnas.study.train_time import train_time_predictor

        return train_time_predictor(self.context, journal)


class Unpriced(Pricing):
    """Predicts nothing: the configuration says that latency plays no part.

    Args:
        context: The parts of the run.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    def predict(self, architectures: Sequence[Architecture]) -> list[Prediction]:
        """Refuse: there is no table.

        Raises:
            UserInputError: Always.
        """
        raise UserInputError(
            "this run does not look at latency", "set latency.skip=false and start a new run"
        )

    def records(self, architectures: Sequence[Architecture]) -> list[Record | None]:
        """Return that nothing is known."""
        return [None] * len(architectures)

    def kernels(self, architecture: Architecture) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """Return that nothing is known."""
        return [], {}

    def save(self, folder: Path) -> dict[str, Any]:
        """Return the journal's record: there is no table."""
        return {"summary": "skipped: latency plays no part", "provenance": None}


def finite(value: float) -> float | None:
    """Return None for what JSON cannot say."""
    return value if math.isfinite(value) else None


def _shares(graph: Graph, kernels: Sequence[KernelShare]) -> dict[str, float]:
    """Return each node's part of the kernels' time, by its index as text.

    Empty where the runtime's nodes cannot be told apart: in a graph with nodes that nothing reads.
    """
    from hwnas.graph import Composite
    from hwnas.graph.graph import expansion

    owners: list[int] = []
    for index, node in enumerate(graph.nodes):
        primitives = 1
        if isinstance(node.op, Composite):
            inner, _ = expansion(node.op, graph.input_shapes(node))
            primitives = len(inner) - len(node.inputs)
        owners += [index] * primitives
    total = sum(each.ms for each in kernels)
    if len(owners) != len(graph.expanded().nodes) or total <= 0:
        return {}
    shares: Counter[str] = Counter()
    for each in kernels:
        shares[str(owners[each.node])] += each.ms / total  # type: ignore[assignment]
    return {node: min(float(share), 1.0) for node, share in shares.items()}
