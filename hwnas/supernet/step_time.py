"""How long a training step takes, from the times of a network's ops, forward and backward.

As with latency: the distinct ops of some networks are timed, each by itself, others are estimated
from their kind and size, and a network is a corrected sum. The
correction has four coefficients, none negative, and is fitted to whole steps of a few networks: a
factor on the sum, a cost for each op, a cost for each weight (the optimiser), and a constant.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from hwnas.graph import TRAIN, Graph, GraphBuilder, Node, Shape, Value
from hwnas.graph.counts import macs, params
from hwnas.supernet.run import run_all
from hwnas.supernet.weights import WeightStore

#: Runs of an op until its time is believed: the least of these, after one to warm up.
RUNS = 5
#: With fewer timed ops of a kind, all kinds together say what an op of it costs.
FEWEST = 4


@dataclass(frozen=True)
class OpUse:
    """An op as one network uses it.

    Attributes:
        key: Op with attributes and the shapes that it reads: equal keys take equally long.
        node: One node of the kind.
        shapes: What it reads.
    """

    key: str
    node: Node
    shapes: tuple[Shape, ...]

    @property
    def kind(self) -> str:
        """The op's name."""
        return str(self.node.op.kind)

    def size(self) -> list[float]:
        """Return 1, multiply-accumulates and values read and written, of one example."""
        g = GraphBuilder((1,))
        graph = g.finish(g.add(self.node.op, _read(g, self.shapes), "op"))
        values = sum(math.prod(shape) for shape in (*self.shapes, self.node.shape))
        return [1.0, float(macs(graph)), float(values)]


@dataclass
class StepTimes:
    """What was measured of one data set's batch on this machine; JSON values.

    Attributes:
        batch: Size of the batch.
        op_s: Seconds of each op, forward and backward, by `OpUse.key`.
        sizes: Of each kind of op, the `OpUse.size` of those that were timed, with their seconds:
            from these an op that was not timed is estimated.
        coefficients: Of the sum, the number of ops, the million weights, and 1.
    """

    batch: int
    op_s: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, list[list[float]]] = field(default_factory=dict)
    coefficients: list[float] = field(default_factory=lambda: [1.0, 0.0, 0.0, 0.0])

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    def measure(self, graphs: Sequence[Graph]) -> int:
        """Time the ops of networks that are not known yet.

        Returns:
            How many were timed.
        """
        new = {use.key: use for graph in graphs for use in uses(graph) if use.key not in self.op_s}
        for key, use in new.items():
            self.op_s[key] = op_seconds(use, self.batch)
            self.sizes.setdefault(use.kind, []).append([*use.size(), self.op_s[key]])
        return len(new)

    def seconds_of(self, use: OpUse) -> float:
        """Return the time of an op: measured, or estimated from others of its kind."""
        known = self.op_s.get(use.key)
        if known is not None:
            return known
        if use.key not in self._estimated:
            self._estimated[use.key] = float(np.dot(self._rates(use.kind), use.size()))
        return self._estimated[use.key]

    @cached_property
    def _estimated(self) -> dict[str, float]:
        return {}

    def _rates(self, kind: str) -> list[float]:
        """Return what a kind of op costs by `OpUse.size`, none negative."""
        from scipy.optimize import nnls  # type: ignore[import-untyped]

        timed = self.sizes.get(kind, [])
        if len(timed) < FEWEST:
            timed = [each for rows in self.sizes.values() for each in rows]
        if not timed:
            return [0.0, 0.0, 0.0]
        table = np.array(timed, np.float64)
        seconds = np.maximum(table[:, -1:], 1e-9)
        scale = np.maximum(table[:, :-1].max(0), 1e-9)
        found, _ = nnls(table[:, :-1] / scale / seconds, np.ones(len(table)))
        return [float(each) for each in found / scale]

    def fit(self, graphs: Sequence[Graph], seconds: Sequence[float]) -> None:
        """Fit the correction to whole steps, by non-negative least squares on relative errors.

        Args:
            graphs: Networks, their ops timed.
            seconds: Time of a whole step of each.
        """
        from scipy.optimize import nnls

        measured = np.array(seconds, np.float64)
        rows = np.array([self._features(graph) for graph in graphs]) / measured[:, None]
        # Drawn to the plain sum: with few networks the four can hardly be told apart.
        prior = np.diag([0.1, 0.0, 0.0, 0.0])
        found, _ = nnls(np.vstack([rows, prior]), np.append(np.ones(len(rows)), [0.1, 0, 0, 0]))
        self.coefficients = [float(each) for each in found]

    def predict(self, graph: Graph) -> float:
        """Return the seconds of a step of a network; ops that were not timed are estimated."""
        return float(np.dot(self.coefficients, self._features(graph)))

    def _features(self, graph: Graph) -> list[float]:
        found = list(uses(graph))
        total = sum(self.seconds_of(use) for use in found)
        return [total, float(len(found)), params(graph) / 1e6, 1.0]


def uses(graph: Graph) -> Iterator[OpUse]:
    """Yield the ops of a network as training runs them, fused where they are, inputs left out."""
    fusable = graph.fusable()
    for node in fusable.nodes:
        if node.inputs:
            shapes = tuple(fusable.nodes[i].shape for i in node.inputs)
            yield OpUse(f"{node.op!r}{shapes}", node, shapes)


def op_seconds(use: OpUse, batch: int) -> float:
    """Time one op, forward and backward, with random inputs and its own weights.

    Args:
        use: The op.
        batch: Size of the batch.

    Returns:
        The least CPU seconds of `RUNS` runs, divided by the threads that worked.
    """
    g = GraphBuilder((1,))
    graph = g.finish(g.add(use.node.op, _read(g, use.shapes), "op"))
    store = WeightStore(0)
    store.trainable(graph)
    inputs = {f"in{i}": _input(use, s, batch) for i, s in enumerate(use.shapes)}
    nothing = torch.zeros(batch, 1)

    def step() -> None:
        (output,) = run_all(graph, store, nothing, TRAIN, inputs)
        if output.requires_grad:
            output.backward(torch.ones_like(output))

    return least_seconds(step, RUNS)


def least_seconds(run: Callable[[], object], runs: int) -> float:
    """Return the least CPU time of some runs after one more, per thread of torch.

    CPU time, because other programs make wall time longer and this one hardly; per thread, because
    whoever waits, waits for the wall.
    """
    run()
    taken = []
    for _ in range(runs):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return min(taken) / torch.get_num_threads()


def _read(g: GraphBuilder, shapes: Sequence[Shape]) -> list[Value]:
    """Add inputs of any shapes, which `run_all` takes by their names."""
    return [g.carried(g.input, name=f"in{i}", size=each) for i, each in enumerate(shapes)]


def _input(use: OpUse, shape: Shape, batch: int) -> torch.Tensor:
    if use.node.op.kind == "embedding":
        return torch.zeros(batch, *shape, dtype=torch.int64)
    value = torch.randn(batch, *shape)
    if value.ndim == 4:
        value = value.contiguous(memory_format=torch.channels_last)
    return value.requires_grad_()


def from_json(value: Mapping[str, Any]) -> StepTimes:
    """Read what `to_json` wrote."""
    return StepTimes(**value)
