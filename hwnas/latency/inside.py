"""Times kernels inside whole networks, for runtimes in which they cannot be run on their own."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.latency.timing import Measurement, Stopwatch, undisturbed

if TYPE_CHECKING:
    from onnx import ModelProto

#: A visit runs its network for so long: shorter than others are usually given the core for, and so
#: often at least that counters in whole microseconds are fine enough.
VISIT_MS = 4.0
LEAST_RUNS, MOST_RUNS = 4, 64
#: Each kernel is timed in so many networks, where there are so many.
PLACES = 3


@dataclass(frozen=True, slots=True)
class _Visit:
    times: tuple[float, ...]
    is_clean: bool


def measure_inside(
    models: Mapping[str, Callable[[], ModelProto]],
    stopwatch: Stopwatch,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Measurement]:
    """Time all kernels of networks, in interleaved rounds.

    A kernel's time is its mean over the quieter half of each network's calm visits, and over all
    places where it occurs: a minimum would favour what the counters round down.

    Args:
        models: Makes the networks, by name.
        stopwatch: Knows when the machine is calm, and the protocol.
        progress: Told how many visits are done and how many are planned.

    Returns:
        A measurement for each kernel, by signature.

    Raises:
        DeviceError: The runtime refuses a network.
    """
    protocol = stopwatch.protocol
    signatures: dict[str, tuple[str, ...]] = {}
    visits: dict[str, list[_Visit]] = {name: [] for name in models}
    planned = protocol.rounds * len(models)
    with undisturbed():
        for number in range(protocol.rounds + protocol.extra_rounds):
            for name, make in models.items():
                enough = sum(visit.is_clean for visit in visits[name])
                if number >= protocol.rounds and enough >= min(2, protocol.least_accepted):
                    continue
                inside = stopwatch.runtime.inside(make())
                signatures[name] = tuple(inside.signatures)
                visits[name].append(_visit(inside.run, inside.read, stopwatch))
                if progress is not None and number < protocol.rounds:
                    progress(sum(map(len, visits.values())), planned)
    places: dict[str, list[float]] = {}
    calm: Counter[str] = Counter()
    for name, found in visits.items():
        clean = [each for each in found if each.is_clean]
        ranked = sorted(clean or found, key=lambda each: sum(each.times))
        kept = ranked[: math.ceil(len(ranked) / 2)]
        for index, signature in enumerate(signatures[name]):
            mean = statistics.fmean(each.times[index] for each in kept)
            places.setdefault(signature, []).append(mean)
            calm[signature] += len(clean)
    taken = sum(map(len, visits.values()))
    return {each: _summary(times, taken, calm[each]) for each, times in places.items()}


def cover(wanted: Collection[str], networks: Mapping[str, Collection[str]]) -> list[str]:
    """Choose few networks that together have each wanted kernel in `PLACES` of them, if possible.

    Args:
        wanted: Kernels, by signature.
        networks: The kernels of each network.
    """
    missing = Counter(dict.fromkeys(wanted, PLACES))
    left = {name: set(kernels) for name, kernels in networks.items()}
    chosen = []
    while left and +missing:
        best = max(left, key=lambda name: sum(missing[each] > 0 for each in left[name]))
        useful = [each for each in left.pop(best) if missing[each] > 0]
        if not useful:
            break
        missing.subtract(useful)
        chosen.append(best)
    return chosen


def _visit(
    run: Callable[[], object], read: Callable[[], Collection[float]], stopwatch: Stopwatch
) -> _Visit:
    run()
    started = time.perf_counter()
    run()
    once_ms = max((time.perf_counter() - started) * 1e3, 1e-3)
    runs = min(max(math.ceil(VISIT_MS / once_ms), LEAST_RUNS), MOST_RUNS)
    read()

    def work() -> None:
        for _ in range(runs):
            run()

    is_calm = stopwatch.calmly(work)
    return _Visit(tuple(read()), is_calm)


def _summary(times: list[float], samples: int, accepted: int) -> Measurement:
    mean = statistics.fmean(times)
    ranked = sorted(times)
    spread = (ranked[int(0.8 * (len(ranked) - 1))] - ranked[int(0.2 * (len(ranked) - 1))]) / max(
        mean, 1e-6
    )
    return Measurement(mean, mean, statistics.median(times), spread, samples, accepted)
