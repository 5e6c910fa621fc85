"""How long a training step takes, from the times of a network's ops, forward and backward.

As with latency: each distinct op is timed by itself, and a network is a corrected sum. The
correction has four coefficients, none negative, and is fitted to whole steps of a few networks: a
factor on the sum, a cost for each op, a cost for each weight (the optimiser), and a constant.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from hwnas.graph import TRAIN, Graph, GraphBuilder, Node, Shape
from hwnas.graph.counts import params
from hwnas.supernet.run import run_all
from hwnas.supernet.weights import WeightStore

#: Runs of an op until its time is believed: the least of these, after one to warm up.
RUNS = 5


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


@dataclass
class StepTimes:
    """What was measured of one data set's batch on this machine; JSON values.

    Attributes:
        batch: Size of the batch.
        op_s: Seconds of each op, forward and backward, by `OpUse.key`.
        coefficients: Of the sum, the number of ops, the million weights, and 1.
    """

    batch: int
    op_s: dict[str, float] = field(default_factory=dict)
    coefficients: list[float] = field(default_factory=lambda: [1.0, 0.0, 0.0, 0.0])

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"batch": self.batch, "op_s": self.op_s, "coefficients": self.coefficients}

    def measure(self, graphs: Sequence[Graph]) -> int:
        """Time the ops of networks that are not known yet.

        Returns:
            How many were timed.
        """
        new = {use.key: use for graph in graphs for use in uses(graph) if use.key not in self.op_s}
        for key, use in new.items():
            self.op_s[key] = op_seconds(use, self.batch)
        return len(new)

    def fit(self, graphs: Sequence[Graph], seconds: Sequence[float]) -> None:
        """Fit the correction to whole steps, by non-negative least squares on relative errors.

        Args:
            graphs: Networks, their ops timed.
            seconds: Time of a whole step of each.
        """
        from scipy.optimize import nnls  # type: ignore[import-untyped]

        measured = np.array(seconds, np.float64)
        rows = np.array([self._features(graph) for graph in graphs]) / measured[:, None]
        # Drawn to the plain sum: with few networks the four can hardly be told apart.
        prior = np.diag([0.1, 0.0, 0.0, 0.0])
        found, _ = nnls(np.vstack([rows, prior]), np.append(np.ones(len(rows)), [0.1, 0, 0, 0]))
        self.coefficients = [float(each) for each in found]

    def predict(self, graph: Graph) -> float:
        """Return the seconds of a step of a network; ops that are not known are timed first."""
        self.measure([graph])
        return float(np.dot(self.coefficients, self._features(graph)))

    def _features(self, graph: Graph) -> list[float]:
        counts = Counter(use.key for use in uses(graph))
        total = sum(self.op_s[key] * count for key, count in counts.items())
        return [total, float(counts.total()), params(graph) / 1e6, 1.0]


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
    read = [g.carried(g.input, name=f"in{i}", size=s) for i, s in enumerate(use.shapes)]
    graph = g.finish(g.add(use.node.op, read, "op"))
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
