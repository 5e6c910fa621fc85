"""Measure what lies beside this file and write results.json.

Needs Python 3.8 or newer, numpy and onnxruntime; nothing else, and no network::

    python run.py [--rounds N]

It may be stopped at any time: started again, it goes on where it was.

The protocol is that of `hwnas.latency.timing.Stopwatch`, without compiled code; a test keeps the
two in agreement.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import math
import os
import sys
import time
from typing import Any, Callable, Dict, List, Tuple

from machine import fingerprint, host_state, read_text  # type: ignore[import-not-found]

HERE = os.path.dirname(os.path.abspath(__file__))
NS_PER_MS = 1e6
GET_ACQUAINTED_S = 0.3
REFRESH = 2000
INPUT_SCALE = 0.5
#: A second runner in the same folder ends with this (`EX_TEMPFAIL`).
BUSY = 75
DTYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(int8)": "int8",
    "tensor(uint8)": "uint8", "tensor(bool)": "bool",
}  # fmt: skip

Run = Callable[[], object]
#: CPU times, wall times, anchors before and after; nanoseconds.
Samples = Dict[str, List[float]]
_thread_ns = getattr(time, "thread_time_ns", time.perf_counter_ns)


def statistics(
    times: List[float],
    before: List[float],
    after: List[float],
    tolerance: float,
    clean: float,
) -> Dict[str, float]:
    """Summarise times by those whose anchors were clean; all of them if none were."""
    limit = clean * (1.0 + tolerance)
    kept = [t for t, b, a in zip(times, before, after) if b <= limit and a <= limit]
    accepted = len(kept)
    kept = sorted(kept or times)
    return {
        "accepted": accepted, "minimum": kept[0], "median": quantile(kept, 0.5),
        "p20": quantile(kept, 0.2), "p80": quantile(kept, 0.8),
    }  # fmt: skip


def quantile(ascending: List[float], q: float) -> float:
    """Return a quantile, interpolated."""
    position = q * (len(ascending) - 1)
    below = int(position)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (position - below) * (ascending[above] - ascending[below])


def summarise(samples: Samples, tolerance: float, clean: float) -> Dict[str, float]:
    """Return what is kept of one run, as `hwnas.latency.timing.Measurement` has it."""
    cpu, wall = (
        statistics(samples[name], samples["before"], samples["after"], tolerance, clean)
        for name in ("cpu", "wall")
    )
    return {
        "ms": cpu["minimum"] / NS_PER_MS,
        "wall_ms": wall["minimum"] / NS_PER_MS,
        "median_ms": cpu["median"] / NS_PER_MS,
        "spread": (cpu["p80"] - cpu["p20"]) / max(cpu["minimum"], 1.0),
        "samples": len(samples["cpu"]),
        "accepted": int(cpu["accepted"]),
    }


class Stopwatch:
    """Times runs by the protocol, gated by an anchor."""

    def __init__(self, anchor: Run, protocol: Dict[str, Any], anchors: List[float]) -> None:
        self.anchor, self.protocol, self.anchors = anchor, protocol, anchors
        self._clean, self._stale_at = math.inf, 0
        started = time.perf_counter()
        while time.perf_counter() - started < GET_ACQUAINTED_S:
            self.time_anchor()

    def time_anchor(self) -> float:
        """Return the anchor's time now."""
        started = _thread_ns()
        self.anchor()
        taken = float(_thread_ns() - started)
        self.anchors.append(taken)
        return taken

    @property
    def clean(self) -> float:
        """The anchor's undisturbed time: a low quantile of all so far."""
        if len(self.anchors) >= self._stale_at:
            self._clean = quantile(sorted(self.anchors), self.protocol["clean_quantile"])
            self._stale_at = len(self.anchors) + REFRESH
        return self._clean

    @property
    def disturbed_share(self) -> float:
        """Share of all anchors that were slower than clean."""
        limit: float = self.clean * (1 + self.protocol["anchor_tolerance"])
        return sum(each > limit for each in self.anchors) / len(self.anchors)

    def _calm(self) -> float:
        limit: float = self.clean * (1 + self.protocol["anchor_tolerance"])
        deadline = time.perf_counter() + self.protocol["patience_ms"] / 1e3
        taken = self.time_anchor()
        while taken > limit and time.perf_counter() < deadline:
            taken = self.time_anchor()
        return taken

    def visit(self, run: Run) -> Samples:
        """Return the samples of one visit."""
        found: Samples = {"cpu": [], "wall": [], "before": [], "after": []}
        run()
        once = _once(run)
        for _ in range(int(self.protocol["warm_up_ms"] * NS_PER_MS / once)):
            run()
        repeats = max(1, math.ceil(self.protocol["sample_ms"] * NS_PER_MS / _once(run)))
        for _ in range(self.protocol["samples"]):
            found["before"].append(self._calm())
            run()
            wall, cpu = time.perf_counter_ns(), _thread_ns()
            for _ in range(repeats):
                run()
            cpu, wall = _thread_ns() - cpu, time.perf_counter_ns() - wall
            self.anchor()
            found["after"].append(self.time_anchor())
            found["cpu"].append(cpu / repeats)
            found["wall"].append(wall / repeats)
        return found


def _once(run: Run) -> int:
    started = time.perf_counter_ns()
    run()
    return max(time.perf_counter_ns() - started, 1)


def prepare(folder: str, item: Dict[str, Any], setup: Dict[str, Any], optimise: bool) -> Run:
    """Make a session of one model, with random weights, and bind its inputs and outputs."""
    import numpy
    import onnxruntime

    with open(os.path.join(folder, item["file"]), "rb") as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != item["sha256"]:
        raise RuntimeError("the file is not the one that the manifest describes")
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = setup["threads"], 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    generator = numpy.random.default_rng(0)
    weights = [_weight(numpy, generator, each) for each in item["weights"]]
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in weights]
    if values:
        options.add_external_initializers([each["name"] for each in item["weights"]], values)
    session = onnxruntime.InferenceSession(content, options, providers=[setup["provider"]])
    feeds = {each.name: _input(numpy, generator, each) for each in session.get_inputs()}
    outputs = session.run(None, feeds)
    for each in outputs:
        if each.dtype.kind == "f" and not numpy.isfinite(each).all():
            raise RuntimeError("its outputs are not finite, so its time means nothing")
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
    for info, value in zip(session.get_outputs(), outputs):
        bound = onnxruntime.OrtValue.ortvalue_from_numpy(numpy.ascontiguousarray(value))
        binding.bind_ortvalue_output(info.name, bound)

    # The session reads the weights where they lie: they live as long as the function.
    def run(_alive: Tuple[Any, ...] = (weights, values)) -> object:
        return session.run_with_iobinding(binding)

    return run


def _weight(numpy: Any, generator: Any, recipe: Dict[str, Any]) -> Any:
    dtype, shape = numpy.dtype(recipe["dtype"]), tuple(recipe["shape"])
    if dtype.kind != "f":
        return numpy.zeros(shape, dtype)
    value = generator.standard_normal(shape)
    if recipe["positive"]:
        value = numpy.abs(value)
    return numpy.ascontiguousarray(value * recipe["scale"] + recipe["shift"], dtype)


def _input(numpy: Any, generator: Any, info: Any) -> Any:
    shape = [each if isinstance(each, int) else 1 for each in info.shape]
    dtype = numpy.dtype(DTYPES[info.type])
    if dtype.kind != "f":
        return numpy.zeros(shape, dtype)
    return (generator.standard_normal(shape) * INPUT_SCALE).astype(dtype)


class Log:
    """What has been measured so far, one line a visit: what a killed run has done is not lost."""

    def __init__(self, path: str, head: Dict[str, Any]) -> None:
        self.visits: Dict[int, List[Dict[str, Any]]] = {}
        self.errors: Dict[int, str] = {}
        lines = read_text(path).split("\n")[:-1]  # a line without its end was cut off by a kill
        known = [each for each in map(_parse, lines) if each is not None]
        is_ours = bool(known) and known[0] == head
        for each in known[1:] if is_ours else ():
            self._add(each)
        self._file = open(path, "w", encoding="utf-8")
        for each in known if is_ours else [head]:
            self._write(each)

    def add(self, line: Dict[str, Any]) -> None:
        """Keep a visit or an error."""
        self._add(line)
        self._write(line)

    def _add(self, line: Dict[str, Any]) -> None:
        if "error" in line:
            self.errors[line["item"]] = line["error"]
        else:
            self.visits.setdefault(line["item"], []).append(line)

    def _write(self, line: Dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def samples(self, item: int) -> Samples:
        """Return all samples of an item."""
        visits = self.visits.get(item, ())
        return {
            name: [value for visit in visits for value in visit[name]]
            for name in ("cpu", "wall", "before", "after")
        }


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def measure(folder: str, manifest: Dict[str, Any], log: Log) -> Stopwatch:
    """Visit everything in rounds, and what has too few clean samples again."""
    setup, protocol, items = manifest["runtime"], manifest["protocol"], manifest["items"]
    anchors = [a for v in log.visits.values() for each in v for a in each["before"] + each["after"]]
    watch = Stopwatch(prepare(folder, items[0], setup, False), protocol, anchors)
    rounds, done = protocol["rounds"], sum(map(len, log.visits.values()))
    show = _Progress(rounds * len(items))
    for number in range(rounds + protocol["extra_rounds"]):
        wanted = [
            i for i in range(len(items))
            if i not in log.errors and (
                len(log.visits.get(i, ())) <= number if number < rounds
                else _is_needy(log.samples(i), watch)
            )
        ]  # fmt: skip
        for i in wanted[:: -1 if number % 2 else 1]:
            try:
                run = prepare(folder, items[i], setup, items[i]["kind"] == "network")
                visit = watch.visit(run)
            except Exception as error:
                log.add({"item": i, "error": str(error)[:500]})
            else:
                log.add(dict(visit, item=i))
            done += 1
            show(done)
    show.end()
    return watch


def _is_needy(samples: Samples, watch: Stopwatch) -> bool:
    found = summarise(samples, watch.protocol["anchor_tolerance"], watch.clean)
    least: int = watch.protocol["least_accepted"]
    return found["accepted"] < least


class _Progress:
    """One line that is overwritten; where it is no terminal, a new line now and then."""

    def __init__(self, total: int) -> None:
        self.total, self.started, self.said = total, time.time(), 0.0

    def __call__(self, done: int) -> None:
        every = 0.2 if sys.stdout.isatty() else 2.0
        if time.time() - self.said < every and done != self.total:
            return
        self.said = time.time()
        text = "visit %d of %d, %d s" % (
            min(done, self.total),
            self.total,
            self.said - self.started,
        )
        sys.stdout.write(("\r%s " if sys.stdout.isatty() else "%s\n") % text)
        sys.stdout.flush()

    def end(self) -> None:
        if sys.stdout.isatty():
            sys.stdout.write("\n")


def main() -> int:
    """Measure and write results.json."""
    parser = argparse.ArgumentParser(description="Measure this device for hwnas.")
    parser.add_argument("--rounds", type=int, help="visits to everything")
    parser.add_argument("--folder", default=HERE, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder
    lock = open(os.path.join(folder, "lock"), "w")
    if not _lock(lock):
        print("another run.py is at work in this folder", file=sys.stderr)
        return BUSY
    with open(os.path.join(folder, "manifest.json"), "rb") as file:
        content = file.read()
    manifest = json.loads(content.decode("utf-8"))
    if arguments.rounds:
        manifest["protocol"]["rounds"] = arguments.rounds
    device, digest = fingerprint(manifest["runtime"]), hashlib.sha256(content).hexdigest()
    before = host_state()
    log = Log(os.path.join(folder, "progress.jsonl"), {"manifest": digest, "device": device})
    gc.collect()
    gc.disable()
    if manifest["runtime"]["threads"] == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    watch = measure(folder, manifest, log)
    results = []
    for i, item in enumerate(manifest["items"]):
        row: Dict[str, Any] = {"sha256": item["sha256"]}
        if i in log.errors:
            row["error"] = log.errors[i]
        else:
            tolerance = manifest["protocol"]["anchor_tolerance"]
            row.update(summarise(log.samples(i), tolerance, watch.clean))
        results.append(row)
    written = {
        "format": "hwnas-results", "schema_version": 1, "device": device,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "manifest_sha256": digest, "manifest": content.decode("utf-8"),
        "protocol": manifest["protocol"], "results": results,
        "anchor_clean_us": watch.clean / 1e3, "disturbed_share": watch.disturbed_share,
        "host_before": before, "host_after": host_state(),
    }  # fmt: skip
    path = os.path.join(folder, "results.json")
    with open(path + ".part", "w", encoding="utf-8") as out:
        json.dump(written, out)
    os.replace(path + ".part", path)
    failed = "" if not log.errors else ", %d failed" % len(log.errors)
    print("%s: %d measured%s" % (path, len(results) - len(log.errors), failed))
    return 0


def _lock(file: Any) -> bool:
    try:
        import fcntl
    except ImportError:  # not on every system
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
