"""Can the latency predictor be trusted? Prediction against measurement, beside the noise floor.

For each space, architectures that were not profiled are predicted from the table of this device,
then measured as whole networks in two independent passes. Every figure of the prediction stands
beside the same figure between the two passes: no prediction can do better than that.

    python benchmarks/latency.py            # a table for people
    python benchmarks/latency.py --json     # one JSON object
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.export.onnx import to_onnx
from hwnas.graph import Architecture
from hwnas.latency.decompose import Decomposer
from hwnas.latency.device import Device, host_state
from hwnas.latency.predictor import LatencyPredictor
from hwnas.latency.profiler import decomposer_state, measure_models, profile
from hwnas.latency.table import LatencyTable, find_table
from hwnas.latency.timing import Protocol, Stopwatch, relative_difference
from hwnas.spaces import SPACES, SearchSpace

#: Space, settings, input shape and number of classes of each case.
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...], int]] = {
    "conv_chain": ("conv_chain", {}, (1, 8, 8), 10),
    "enas_micro": ("enas_micro", {}, (3, 32, 32), 10),
    "enas_micro of the recipe": (
        "enas_micro",
        {"layers": 2, "channels": 16, "stem_multiplier": 1},
        (3, 32, 32),
        10,
    ),
}
#: With fewer networks measured while calm, all are judged, and the rows say so.
LEAST_CALM = 10
HELD_OUT_SEED = 7_301_948


@dataclass(frozen=True)
class Agreement:
    """How well two lists of times agree: the first is judged, the second is taken as true."""

    within_5: float
    within_10: float
    rmspe: float
    kendall_tau: float
    errors: tuple[float, ...]

    @classmethod
    def of(cls, judged: Sequence[float], true: Sequence[float]) -> Agreement:
        """Compare two lists of times of the same networks."""
        from scipy.stats import kendalltau  # type: ignore[import-untyped]

        error = np.abs(np.asarray(judged) / np.asarray(true) - 1)
        return cls(
            float(np.mean(error <= 0.05)),
            float(np.mean(error <= 0.10)),
            relative_difference(true, judged),
            float(kendalltau(judged, true).statistic),
            tuple(float(each) for each in error),
        )


def space_of(case: str) -> SearchSpace:
    """Return the space of a case."""
    name, settings, shape, classes = CASES[case]
    plugin = SPACES.get(name)
    return plugin(plugin.Config(**settings), shape, classes)


def is_profiled(case: str, table: LatencyTable) -> bool:
    """Return whether a table has the networks of a case."""
    wanted = space_of(case).config.model_dump(mode="json")
    return any(record.get("space_config") == wanted for record in table.provenance)


def held_out(space: SearchSpace, table: LatencyTable, count: int) -> list[Architecture]:
    """Sample architectures that were neither measured nor decomposed while profiling."""
    profiled = {each.id.split("/")[-1] for each in table.networks}
    for record in table.provenance:
        rng = random.Random(record.get("seed", 0))
        profiled |= {space.sample(rng).id for _ in range(3 * record.get("sampled_networks", 0))}
    rng = random.Random(HELD_OUT_SEED)
    found: dict[str, Architecture] = {}
    while len(found) < count:
        architecture = space.sample(rng)
        if architecture.id not in profiled:
            found[architecture.id] = architecture
    return list(found.values())


def rows_of(
    case: str, table: LatencyTable, device: Device, count: int, protocol: Protocol
) -> list[dict[str, Any]]:
    """Return the figures of one space."""
    name, space = CASES[case][0], space_of(case)
    architectures = held_out(space, table, count)
    graphs = [space.graph(each) for each in architectures]

    cache = Decomposer(device.runtime, decomposer_state(table), audit_every=0)
    looked_up = [cache.look_up(graph) for graph in graphs]
    learned = [cache.learn(graph) for graph in graphs]
    exact = [
        sorted(a.kernels) == sorted(b.kernels)
        for a, b in zip(looked_up, learned, strict=True)
        if a is not None
    ]

    predictor = LatencyPredictor(table, device, space=name, on_miss="measure", protocol=protocol)
    known = len(table.entries)
    predictions = predictor.predict(graphs)
    started = time.perf_counter()
    predictor.predict(graphs)
    seconds = time.perf_counter() - started

    models = {
        each.id: device.runtime.optimise(to_onnx(graph))
        for each, graph in zip(architectures, graphs, strict=True)
    }
    passes = [measure_models(models, device, Stopwatch(device.runtime, protocol)) for _ in "ab"]
    # Ground truth that was taken in a storm would be counted as an error of the prediction.
    calm = [at for at, key in enumerate(models) if all(each[key].accepted for each in passes)]
    used = calm if len(calm) >= LEAST_CALM else list(range(len(models)))
    keys = list(models)
    first, second = ([each[keys[at]].ms for at in used] for each in passes)
    true = [min(pair) for pair in zip(first, second, strict=True)]
    judged = [predictions[at] for at in used]
    prediction = Agreement.of([each.ms for each in judged], true)
    floor = Agreement.of(first, second)
    inside = [each.low_ms <= ms <= each.high_ms for each, ms in zip(judged, true, strict=True)]
    widths = [(each.high_ms - each.low_ms) / each.ms for each in judged]
    p20, p50, p80 = (float(each) for each in np.quantile(prediction.errors, [0.2, 0.5, 0.8]))

    def row(what: str, value: float, unit: str, **more: Any) -> dict[str, Any]:
        return {"name": f"{case}: {what}", "value": value, "unit": unit, **more}

    return [
        row("within 10 %", prediction.within_10, "share", against=floor.within_10),
        row("within 5 %", prediction.within_5, "share", against=floor.within_5),
        row("RMSPE", prediction.rmspe, "share", against=floor.rmspe, p20=p20, p50=p50, p80=p80),
        row("Kendall tau", prediction.kendall_tau, "1", against=floor.kendall_tau),
        row("inside the interval", float(np.mean(inside)), "share", goal=predictor.coverage),
        row("interval width", float(np.median(widths)), "share"),
        row("decomposed without export", len(exact) / len(graphs), "share"),
        row("… of these exact", float(np.mean(exact)) if exact else float("nan"), "share"),
        row("kernels measured on demand", len(table.entries) - known, "kernels"),
        row("prediction, everything known", seconds / len(graphs) * 1e3, "ms per network"),
        row("networks judged", len(used), "networks"),
        row("… measured while calm in both passes", len(calm), "networks"),
    ]


def machine(device: Device) -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {"device": device.id, **asdict(device.fingerprint), **host_state()}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--count", type=int, default=30, help="architectures of each space")
    parser.add_argument("--rounds", type=int, default=6, help="visits to each network in a pass")
    parser.add_argument("--table", type=Path, help="the table (default: this device's)")
    parser.add_argument("--space", choices=sorted(CASES), action="append")
    arguments = parser.parse_args()

    device = Device.here()
    table = LatencyTable.load(arguments.table, device) if arguments.table else find_table(device)
    if table is None:
        table = LatencyTable(device.fingerprint)
    table.path = None  # what is measured here must not end up in the table
    rows = []
    for case in arguments.space or sorted(CASES):
        if not is_profiled(case, table):
            print(f"the table does not have {case}: profiling it first", file=sys.stderr)
            profile(space_of(case), device, table=table)
        rows += rows_of(case, table, device, arguments.count, Protocol(rounds=arguments.rounds))
    if arguments.json:
        print(json.dumps({"machine": machine(device), "rows": rows}))
        return 0
    print(f"{device.id}, {arguments.count} architectures each; in brackets: between two passes")
    for each in rows:
        against = f"  ({each['against']:.3f})" if "against" in each else ""
        print(f"  {each['name']:45} {each['value']:8.3f} {each['unit']}{against}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
