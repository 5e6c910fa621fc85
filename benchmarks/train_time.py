"""Is the time of a training step predicted well? Beside the noise floor, and a simpler method.

For each space, children that took no part in the fit are predicted from the times of their ops
(`hwnas.supernet.step_time`), and whole steps of them are measured in two passes. ``against`` is the
same figure between the two passes: no prediction can do better. The rows of "MACs and bytes" are a
linear fit on the same children.

    python benchmarks/train_time.py            # a table for people
    python benchmarks/train_time.py --json     # one JSON object
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls  # type: ignore[import-untyped]
from scipy.stats import kendalltau  # type: ignore[import-untyped]

from hwnas.graph import TRAIN, Graph
from hwnas.graph.counts import activation_bytes, macs
from hwnas.latency.device import Device, host_state
from hwnas.spaces import SPACES
from hwnas.supernet.config import OptimiserConfig
from hwnas.supernet.step_time import StepTimes
from hwnas.supernet.train import Trainer
from hwnas.supernet.weights import WeightStore

#: Space, settings, image and batch size of each case.
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, int, int], int]] = {
    "conv_chain": ("conv_chain", {}, (3, 16, 16), 64),
    "enas_micro": (
        "enas_micro", {"layers": 2, "channels": 8, "stem_multiplier": 1}, (3, 32, 32), 64,
    ),
    "mobile": ("mobile", {}, (3, 32, 32), 16),
}  # fmt: skip
CLASSES, FITTED = 10, 16


def passes(runs: Sequence[Callable[[], object]], rounds: int) -> np.ndarray[Any, Any]:
    """Return the least CPU seconds of each run, `[2, N]`, from two passes of interleaved rounds."""
    least = np.full((2, len(runs)), np.inf)
    for run in runs:
        run()
    for half in least:
        for _ in range(rounds):
            for i, run in enumerate(runs):
                start = time.process_time()
                run()
                half[i] = min(half[i], time.process_time() - start)
    return least


def figures(predicted: Any, true: Any) -> dict[str, float]:
    """Return how well times agree."""
    errors = np.asarray(predicted) / np.asarray(true) - 1
    return {
        "within 10 %": float(np.mean(np.abs(errors) <= 0.1)),
        "RMSPE": float(np.sqrt(np.mean(errors**2))),
        "Kendall tau": float(kendalltau(predicted, true).statistic),
    }


def rows_of(case: str, count: int, rounds: int) -> list[dict[str, Any]]:
    """Return the figures of one space."""
    name, settings, shape, batch = CASES[case]
    plugin = SPACES.get(name)
    space = plugin(plugin.Config(**settings), shape, CLASSES)
    rng = random.Random(0)
    graphs = [space.graph(space.sample(rng)) for _ in range(FITTED + count)]
    images, labels = torch.randn(batch, *shape), torch.randint(0, CLASSES, (batch,))

    def step_of(graph: Graph) -> Callable[[], object]:
        trainer = Trainer(WeightStore(0), OptimiserConfig(), 1)
        return lambda: trainer.step([graph], (images, labels), 0.0, TRAIN)

    first, second = passes([step_of(graph) for graph in graphs], rounds)
    true = np.minimum(first, second)[FITTED:]
    times = StepTimes(batch)
    times.measure(graphs[:FITTED])
    times.fit(graphs[:FITTED], list(first[:FITTED]))
    by_ops = figures([times.predict(graph) for graph in graphs[FITTED:]], true)
    features = np.array([[1.0, macs(each) / 1e9, activation_bytes(each) / 1e9] for each in graphs])
    linear, _ = nnls(features[:FITTED] / first[:FITTED, None], np.ones(FITTED))
    by_size = figures(features[FITTED:] @ linear, true)
    floor = figures(first[FITTED:], second[FITTED:])
    return [
        {"name": f"{case}: {what}{how}", "value": value, "unit": "1", "against": floor[what]}
        for how, found in (("", by_ops), (", MACs and bytes", by_size))
        for what, value in found.items()
    ]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--count", type=int, default=24, help="children that are predicted")
    parser.add_argument("--rounds", type=int, default=6, help="steps of each child in a pass")
    parser.add_argument("--case", choices=sorted(CASES), action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        row
        for case in arguments.case or sorted(CASES)
        for row in rows_of(case, arguments.count, arguments.rounds)
    ]
    if arguments.json:
        device = Device.here()
        machine = {"device": device.id, **asdict(device.fingerprint), **host_state()}
        print(json.dumps({"machine": machine, "rows": rows}))
        return 0
    print("in brackets: between two passes of measurement")
    for each in rows:
        print(f"  {each['name']:40} {each['value']:8.3f}  ({each['against']:.3f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
