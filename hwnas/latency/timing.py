"""Measuring on a machine that is shared: the one protocol that everything here is timed with.

Wall time on a shared machine says little, and no statistic of one burst repeats. What repeats is
thread CPU time (wall time with several threads: the time of one does not show their work), kept
only where a small *anchor* kernel ran at its clean speed just before and just after, with bursts
spread over time and the minimum taken: the noise is one-sided. The statistics are in C++
(`csrc/cpu/timing_stats.cpp`).
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hwnas import _core
from hwnas.errors import DeviceError
from hwnas.latency.contention import Contention, Watch
from hwnas.latency.intervals import repeatable
from hwnas.latency.kernels import Kernel, Operand
from hwnas.latency.runtimes import Runtime, TensorType

Run = Callable[[], object]
NS_PER_MS = 1e6
#: How long a new stopwatch watches the anchor before it trusts its clean speed.
GET_ACQUAINTED_S = 0.3
#: After how many anchors the clean speed is worked out again.
REFRESH = 2000


class Protocol(BaseModel):
    """How something is timed. Stored with every table, because numbers depend on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: int = Field(4, ge=1, description="visits to everything, spread over the whole time")
    samples: int = Field(8, ge=1, description="samples of one visit")
    sample_ms: float = Field(0.1, gt=0, description="runs are repeated until a sample is this long")
    warm_up_ms: float = Field(0.3, ge=0, description="runs before the first sample of a visit")
    clean_quantile: float = Field(
        0.01, ge=0, le=1, description="quantile of all anchors that is taken as their clean speed"
    )
    anchor_tolerance: float = Field(
        0.06, gt=0, description="a sample counts if its anchors are at most this much slower"
    )
    patience_ms: float = Field(
        2.0, ge=0, description="how long to wait for a clean anchor before a sample"
    )
    extra_rounds: int = Field(
        8, ge=0, description="more visits at most to what has too few clean samples"
    )
    least_accepted: int = Field(4, ge=1, description="clean samples that are enough")
    precision: float | None = Field(
        None,
        gt=0,
        description="extra rounds go on until every interval is at most this far from its time, "
        "relatively; null: they are for what has too few clean samples only",
    )


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured of one run.

    Attributes:
        ms: Least clean time of one run, by the clock that the runtime asks for: what predictions
            are about. With one thread it is the thread's CPU time, which is the wall time on an
            idle device; with several it is the wall time while the anchor, which then runs on as
            many cores, was clean.
        wall_ms: Least wall time of one run.
        median_ms: Median of the clean times, by the clock of `ms`.
        spread: (80 % − 20 % quantile) / minimum of the clean times.
        samples: Samples taken.
        accepted: Samples during which the anchor ran clean; 0 means that no sample did and all were
            used, which is worth little.
        visit_ms: Least time of each visit, of its clean samples where it has any.
    """

    ms: float
    wall_ms: float
    median_ms: float
    spread: float
    samples: int
    accepted: int
    visit_ms: tuple[float, ...] = ()

    @property
    def interval_ms(self) -> tuple[float, float]:
        """In which a second measurement finds `ms`; infinite after too few visits."""
        return repeatable(self.visit_ms)

    @property
    def precision(self) -> float:
        """How far the interval reaches from `ms`, relatively."""
        low, high = self.interval_ms
        return max(self.ms - low, high - self.ms) / self.ms if self.ms > 0 else math.inf


@dataclass
class _Samples:
    """Everything timed for one run so far; times in nanoseconds."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    visits: list[int] = field(default_factory=list)  # where each begins


class Stopwatch:
    """Times runs by the protocol, and remembers how fast the anchor runs when undisturbed.

    Args:
        runtime: The runtime that runs the anchor, and says which clock shows its work.
        protocol: How to time.

    Raises:
        DeviceError: The process may use fewer cores than the runtime has threads.
    """

    def __init__(self, runtime: Runtime, protocol: Protocol | None = None) -> None:
        self.runtime = runtime
        self.protocol = protocol or Protocol()
        threads = runtime.config.threads
        _require_cores(threads)
        is_thread = runtime.clock(threads) == "thread"
        self._clock = time.thread_time_ns if is_thread else time.perf_counter_ns
        self._anchor = runtime.prepare(anchor_kernel(threads).to_model(), optimise=False)
        self._anchors: list[float] = []
        self._clean_ns, self._stale_at = math.inf, 0
        self._watch = Watch()
        started = time.perf_counter()
        while time.perf_counter() - started < GET_ACQUAINTED_S:
            self._time_anchor()

    def measure_all(
        self,
        prepare: Mapping[str, Callable[[], Run]],
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Measurement]:
        """Time several runs in interleaved rounds, in alternating order.

        Args:
            prepare: Makes the run, by name. It is called anew in each round, so that only one
                model is in memory.
            progress: Told how many visits are done and how many are planned.

        Returns:
            A measurement for each name.
        """
        samples = {name: _Samples() for name in prepare}
        planned, done = self.protocol.rounds * len(prepare), 0
        with undisturbed(), _on_one_core(self.runtime.config.threads):
            for number in range(self.protocol.rounds):
                for name in _alternating(prepare, number):
                    self._visit(prepare[name](), samples[name])
                    done += 1
                    if progress is not None:
                        progress(done, planned)
            for number in range(self.protocol.extra_rounds):
                needy = [name for name in prepare if self._is_needy(samples[name])]
                if not needy:
                    break
                # For a comparison all are visited equally often.
                visited = needy if self.protocol.precision is None else list(prepare)
                for name in _alternating(visited, number):
                    self._visit(prepare[name](), samples[name])
        return {name: self._summarise(each) for name, each in samples.items()}

    def measure(self, run: Run) -> Measurement:
        """Time one run."""
        return self.measure_all({"run": lambda: run})["run"]

    def calmly(self, work: Callable[[], object]) -> bool:
        """Wait for a calm moment and do something; return whether it stayed calm.

        Calm is what the anchor calls so, and that nobody else had the core meanwhile.
        """
        before = self._wait_for_calm()
        wall, used = time.perf_counter_ns(), self._clock()
        work()
        wall, used = time.perf_counter_ns() - wall, self._clock() - used
        self._anchor()  # brings back what the work has evicted from the caches
        is_undisturbed = wall - used <= self.protocol.anchor_tolerance / 2 * wall
        return max(before, self._time_anchor()) <= self._limit_ns and is_undisturbed

    @property
    def anchor_clean_ns(self) -> float:
        """Time of the anchor on an undisturbed machine: a low quantile of all so far."""
        if len(self._anchors) >= self._stale_at:
            self._clean_ns = float(np.quantile(self._anchors, self.protocol.clean_quantile))
            self._stale_at = len(self._anchors) + REFRESH
        return self._clean_ns

    @property
    def disturbed_share(self) -> float:
        """Share of all anchors that were slower than clean by more than the tolerance."""
        limit = self._limit_ns
        return float(np.mean(np.array(self._anchors) > limit))

    @property
    def contention(self) -> Contention:
        """Who else wanted the processor since this stopwatch was made."""
        return self._watch.since()

    def _visit(self, run: Run, samples: _Samples) -> None:
        samples.visits.append(len(samples.cpu))
        run()
        started = time.perf_counter_ns()
        run()
        once = max(time.perf_counter_ns() - started, 1)
        for _ in range(int(self.protocol.warm_up_ms * NS_PER_MS / once)):
            run()
        started = time.perf_counter_ns()
        run()
        once = max(time.perf_counter_ns() - started, 1)
        repeats = max(1, math.ceil(self.protocol.sample_ms * NS_PER_MS / once))
        for _ in range(self.protocol.samples):
            before = self._wait_for_calm()
            run()  # what ran meanwhile has taken the caches
            wall = time.perf_counter_ns()
            cpu = self._clock()
            for _ in range(repeats):
                run()
            cpu = self._clock() - cpu
            wall = time.perf_counter_ns() - wall
            self._anchor()  # brings back what a large run has evicted from the caches
            after = self._time_anchor()
            samples.cpu.append(cpu / repeats)
            samples.wall.append(wall / repeats)
            samples.before.append(before)
            samples.after.append(after)

    def _wait_for_calm(self) -> float:
        """Run the anchor until it is clean or patience ends; return its last time."""
        limit = self._limit_ns
        deadline = time.perf_counter() + self.protocol.patience_ms / 1e3
        taken = self._time_anchor()
        while taken > limit and time.perf_counter() < deadline:
            taken = self._time_anchor()
        return taken

    @property
    def _limit_ns(self) -> float:
        return self.anchor_clean_ns * (1 + self.protocol.anchor_tolerance)

    def _time_anchor(self) -> float:
        started = self._clock()
        self._anchor()
        taken = float(self._clock() - started)
        self._anchors.append(taken)
        return taken

    def _statistics(self, samples: _Samples, times: Sequence[float]) -> _core.TimingStatistics:
        """Summarise the times of the samples that the anchors of the whole session call clean."""
        return _core.timing_statistics(
            np.array(times),
            np.array(samples.before),
            np.array(samples.after),
            self.protocol.anchor_tolerance,
            self.anchor_clean_ns,
        )

    def _is_needy(self, samples: _Samples) -> bool:
        if self._statistics(samples, samples.cpu)["accepted"] < self.protocol.least_accepted:
            return True
        limit = self.protocol.precision
        return limit is not None and self._summarise(samples).precision > limit

    def _summarise(self, samples: _Samples) -> Measurement:
        cpu, wall = self._statistics(samples, samples.cpu), self._statistics(samples, samples.wall)
        return Measurement(
            ms=cpu["minimum"] / NS_PER_MS,
            wall_ms=wall["minimum"] / NS_PER_MS,
            median_ms=cpu["median"] / NS_PER_MS,
            spread=(cpu["p80"] - cpu["p20"]) / max(cpu["minimum"], 1.0),
            samples=len(samples.cpu),
            accepted=cpu["accepted"],
            visit_ms=tuple(each / NS_PER_MS for each in self._visit_ns(samples)),
        )

    def _visit_ns(self, samples: _Samples) -> list[float]:
        """Return the least time of each visit, of its clean samples where it has any."""
        limit, least = self._limit_ns, []
        for start, stop in pairwise([*samples.visits, len(samples.cpu)]):
            visit = range(start, stop)
            clean = [i for i in visit if max(samples.before[i], samples.after[i]) <= limit]
            least.append(min(samples.cpu[i] for i in clean or visit))
        return least


def _alternating(names: Iterable[str], number: int) -> list[str]:
    """Return names in their order, or backwards: what comes after its like finds warm caches."""
    return list(names)[:: -1 if number % 2 else 1]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep Python's garbage collector from running inside a sample."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _on_one_core(threads: int) -> Iterator[None]:
    """Keep this thread from moving between cores, and losing its caches, where the system can.

    A runtime with several threads is left alone: those that it starts would share the core.
    """
    if threads > 1 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})  # the first core serves most interrupts
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _require_cores(threads: int) -> None:
    """Refuse to time threads that must share a core: the result would be of no device."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads
    if cores < threads:
        raise DeviceError(
            f"{threads} threads cannot be timed: this process may use {cores} core(s)",
            "give it more cores (taskset, cgroup), or name a device with fewer threads",
        )


def _convolution(channels: int, size: int) -> Kernel:
    image = TensorType(1, (1, channels, size, size))
    return Kernel(
        "", "Conv", 11, (("kernel_shape", [3, 3]), ("pads", [1, 1, 1, 1])),
        (Operand(image), Operand(TensorType(1, (channels, channels, 3, 3)), is_weight=True)),
        (image,),
    )  # fmt: skip


def anchor_kernel(threads: int = 1) -> Kernel:
    """Return the anchor: compute in the vector units, memory in the second-level cache.

    For several threads it has work for each of them.
    """
    return _convolution(channels=32, size=16 if threads == 1 else 32)


def nothing() -> Kernel:
    """Return a kernel that does nothing: its time is what one call of the runtime costs."""
    one = TensorType(1, (1,))
    return Kernel("", "Identity", 1, (), (Operand(one),), (one,))


def relative_difference(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the root mean square of ``second / first - 1``: the noise floor of two passes."""
    ratio = np.asarray(second) / np.asarray(first) - 1
    return float(np.sqrt(np.mean(ratio**2)))
