"""Does the predictor hold on every device? Prediction against measurement, beside the noise floor.

For each device and each small space a table is measured from nothing, then networks that were not
profiled are predicted, and measured in two independent passes.

    python benchmarks/devices.py --device onnxruntime:threads=2     # a table for people
    python benchmarks/devices.py --device openvino --json           # one JSON object
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

from latency import HELD_OUT_SEED, Agreement

from hwnas.export.onnx import to_onnx
from hwnas.latency.device import Device, host_state
from hwnas.latency.predictor import LatencyPredictor
from hwnas.latency.profiler import measure_models, profile
from hwnas.latency.timing import Measurement, Protocol, Stopwatch
from hwnas.spaces import SPACES, SearchSpace

#: Settings of each space, small enough that a table takes about a minute.
CASES: dict[str, dict[str, Any]] = {
    "enas_micro": {"nodes": 3, "layers": 2, "channels": 16},
    "enas_macro": {"layers": 4, "channels": 16},
    "mobile": {
        "stages": [{"channels": 16, "blocks": 2}, {"channels": 24, "blocks": 2, "stride": 2}],
        "kernels": [3, 5],
        "stem": 16,
        "features": 128,
    },
    "nasbench101": {"channels": 16, "stacks": 2, "cells": 1},
}
#: Networks whose kernels are measured, and how many of them are measured whole.
PROFILED, WHOLE = 30, 16


def space_of(name: str) -> SearchSpace:
    """Return the space of a case, for small colour images."""
    plugin = SPACES.get(name)
    return plugin(plugin.Config(**CASES[name]), (3, 32, 32), 10)


def held_out(space: SearchSpace, count: int) -> list[Any]:
    """Return graphs of architectures that `profile` does not sample."""
    rng = random.Random(0)
    profiled = {space.sample(rng).id for _ in range(10 * PROFILED)}
    rng, found = random.Random(HELD_OUT_SEED), {}
    for _ in range(100 * count):
        architecture = space.sample(rng)
        if architecture.id not in profiled:
            found.setdefault(architecture.id, space.graph(architecture))
        if len(found) >= count:
            break
    return list(found.values())


def rows_of(case: str, device: Device, name: str, count: int, protocol: Protocol) -> list[Any]:
    """Return the figures of one space on one device."""
    started = time.perf_counter()
    space = space_of(case)
    table = profile(space, device, networks=PROFILED, calibration_networks=WHOLE, protocol=protocol)
    taken = time.perf_counter() - started
    graphs = held_out(space, count)
    predictor = LatencyPredictor(table, device, space=case, on_miss="measure", protocol=protocol)
    predicted = [each.ms for each in predictor.predict(graphs)]
    models = {str(i): device.runtime.optimise(to_onnx(g)) for i, g in enumerate(graphs)}
    first, second = (_pass(models, device, protocol) for _ in range(2))
    true = [min(a.ms, b.ms) for a, b in zip(first, second, strict=True)]
    prediction = Agreement.of(predicted, true)
    floor = Agreement.of([each.ms for each in first], [each.ms for each in second])
    label = f"{name}: {case}"
    rows = [
        _row(f"{label}: within 10 %", prediction.within_10, "share", floor.within_10, 0.95),
        _row(f"{label}: within 5 %", prediction.within_5, "share", floor.within_5, None),
        _row(f"{label}: RMSPE", prediction.rmspe, "share", floor.rmspe, None),
        _row(f"{label}: Kendall tau", prediction.kendall_tau, "", floor.kendall_tau, None),
        _row(f"{label}: profiling", taken, "s", None, None),
    ]
    errors = sorted(prediction.errors)
    for quantile in (20, 50, 80):
        rows[0][f"p{quantile}"] = errors[(len(errors) - 1) * quantile // 100]
    rows[0]["networks"] = len(graphs)
    rows[0]["clean_networks"] = sum(
        min(a.accepted, b.accepted) > 0 for a, b in zip(first, second, strict=True)
    )
    return rows


def _pass(models: dict[str, Any], device: Device, protocol: Protocol) -> list[Measurement]:
    measured = measure_models(models, device, Stopwatch(device.runtime, protocol))
    return [measured[each] for each in models]


def _row(
    name: str, value: float, unit: str, against: float | None, goal: float | None
) -> dict[str, Any]:
    return {
        "name": name, "value": value, "unit": unit, "goal": goal,
        "met": None if goal is None else value >= goal,
        "p20": None, "p50": None, "p80": None, "against": against,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; the noise floor is in the column ``against``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", action="append", help="as in `hwnas --device`; repeatable")
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    protocol = Protocol(rounds=given.rounds)
    before, rows = host_state(), []
    for name in given.device or ["onnxruntime", "onnxruntime:threads=2"]:
        device = Device.named(name)
        for case in given.case or CASES:
            found = rows_of(case, device, name, given.networks, protocol)
            rows += found
            for row in found:
                floor = "" if row["against"] is None else f"noise floor {row['against']:.3f}"
                text = f"{row['name']:<52} {row['value']:8.3f} {row['unit']:<6} {floor}"
                print(text, file=sys.stderr if given.json else sys.stdout, flush=True)
    if given.json:
        machine = {**Device.here().fingerprint.to_json(), "before": before, "after": host_state()}
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
