"""The protocol on a simulated machine: a clock that the runs move, and neighbours that disturb."""

from __future__ import annotations

import random

import pytest

from hwnas.errors import DeviceError
from hwnas.latency import timing
from hwnas.latency.profiler import profile
from hwnas.latency.runtimes import Runtime as AnyRuntime
from hwnas.latency.runtimes import RuntimeConfig
from hwnas.latency.timing import Protocol, Stopwatch, relative_difference
from tests.latency.conftest import QUICK

ANCHOR_NS, RUN_NS = 50_000, 200_000


class Machine:
    """Runs take their time, longer while a neighbour is busy."""

    def __init__(self, busy: float, seed: int = 0) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self.busy = busy
        self.slowdown, self.until = 1.0, 0.0

    def spend(self, ns: float) -> None:
        if self.now >= self.until:
            self.slowdown = 1.6 if self.rng.random() < self.busy else 1.0
            self.until = self.now + self.rng.uniform(1e6, 5e6)
        self.now += ns * self.slowdown * (1 + 0.01 * self.rng.random())

    def clock(self) -> int:
        return int(self.now)


class Runtime:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    clock = AnyRuntime.clock
    config = RuntimeConfig()

    def prepare(self, model, *, optimise):
        return lambda: self.machine.spend(ANCHOR_NS)


@pytest.fixture
def stopwatch_on(monkeypatch):
    def make(busy: float, protocol: Protocol | None = None) -> tuple[Stopwatch, Machine]:
        machine = Machine(busy)
        monkeypatch.setattr(timing.time, "thread_time_ns", machine.clock)
        monkeypatch.setattr(timing.time, "perf_counter_ns", machine.clock)
        monkeypatch.setattr(timing.time, "perf_counter", lambda: machine.now / 1e9)
        monkeypatch.setattr(timing, "GET_ACQUAINTED_S", 0.3)
        return Stopwatch(Runtime(machine), protocol), machine

    return make


@pytest.mark.parametrize("busy", [0.0, 0.5, 0.9])
def test_the_true_time_is_found_however_busy_the_machine_is(stopwatch_on, busy):
    stopwatch, machine = stopwatch_on(busy)
    found = stopwatch.measure(lambda: machine.spend(RUN_NS))
    assert found.ms == pytest.approx(RUN_NS / 1e6, rel=0.02)
    assert found.accepted >= 1
    assert found.spread < 0.1


def test_disturbed_samples_are_not_accepted(stopwatch_on):
    stopwatch, machine = stopwatch_on(0.5, Protocol(patience_ms=0, extra_rounds=0))
    found = stopwatch.measure(lambda: machine.spend(RUN_NS))
    assert found.accepted < found.samples


def test_a_machine_that_was_never_calm_is_admitted(stopwatch_on):
    stopwatch, machine = stopwatch_on(0.0, Protocol(patience_ms=0, extra_rounds=0))
    machine.busy, machine.until = 1.0, 0.0
    found = stopwatch.measure(lambda: machine.spend(RUN_NS))
    assert found.accepted == 0
    assert found.ms > 1.5 * RUN_NS / 1e6


def test_what_has_too_few_clean_samples_is_visited_again(stopwatch_on):
    few, _ = stopwatch_on(0.0)
    stopwatch, machine = stopwatch_on(0.9, Protocol(rounds=1, samples=4, patience_ms=0))
    found = stopwatch.measure(lambda: machine.spend(RUN_NS))
    assert found.samples > 4
    assert few.disturbed_share == 0.0
    assert stopwatch.disturbed_share > 0.5


def test_the_noise_floor_is_the_relative_difference_of_two_passes():
    assert relative_difference([1.0, 2.0], [1.1, 1.8]) == pytest.approx(0.1)


def test_profiling_measures_every_kernel_and_says_how(device, conv_chain):
    steps = set()
    table = profile(
        conv_chain, device, networks=6, calibration_networks=3, protocol=QUICK,
        progress=lambda step, done, total: steps.add((step, done == total)),
    )  # fmt: skip
    assert {("kernels", True), ("timing", True), ("networks", True)} <= steps
    assert len(table.networks) == 3
    assert set(table.contexts["signatures"]) == set(table.entries)
    record = table.provenance[-1]
    assert record["protocol"] == QUICK.model_dump()
    assert record["space"] == "conv_chain"
    assert record["measured_kernels"] == len(table.entries)


def test_a_table_is_extended_without_measuring_anything_twice(device, conv_chain):
    settings = {"calibration_networks": 2, "protocol": QUICK}
    table = profile(conv_chain, device, networks=4, **settings)
    before = dict(table.entries)
    again = profile(conv_chain, device, table=table, networks=8, **settings)
    assert again is table
    assert {key: table.entries[key] for key in before} == before
    assert len(table.entries) > len(before)
    assert len(table.networks) == 2, "the same networks are not listed twice"
    assert len(table.provenance) == 2


class TwoThreads(Runtime):
    config = RuntimeConfig(threads=2)


@pytest.fixture
def half_shown(monkeypatch):
    """A machine on which the thread that asks does half of the work, and a helper the rest."""
    machine = Machine(busy=0.5)
    monkeypatch.setattr(timing.time, "thread_time_ns", lambda: int(machine.now / 2))
    monkeypatch.setattr(timing.time, "perf_counter_ns", machine.clock)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: machine.now / 1e9)
    monkeypatch.setattr(timing, "GET_ACQUAINTED_S", 0.3)
    monkeypatch.setattr(timing.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(timing.os, "sched_setaffinity", lambda *_: None, raising=False)
    return machine


def test_two_threads_are_timed_by_the_wall_clock_and_so_is_their_anchor(half_shown):
    stopwatch = Stopwatch(TwoThreads(half_shown))
    found = stopwatch.measure(lambda: half_shown.spend(RUN_NS))
    assert found.ms == found.wall_ms == pytest.approx(RUN_NS / 1e6, rel=0.02)
    assert stopwatch.anchor_clean_ns == pytest.approx(ANCHOR_NS, rel=0.02)
    assert found.accepted < found.samples  # the wall clock shows neighbours: the anchor gates it


def test_one_thread_is_timed_by_its_own_clock(half_shown):
    found = Stopwatch(Runtime(half_shown)).measure(lambda: half_shown.spend(RUN_NS))
    assert found.ms == pytest.approx(RUN_NS / 2e6, rel=0.02)
    assert found.wall_ms == pytest.approx(RUN_NS / 1e6, rel=0.02)


def test_threads_that_would_share_a_core_are_not_timed(half_shown, monkeypatch):
    monkeypatch.setattr(timing.os, "sched_getaffinity", lambda _: {1}, raising=False)
    with pytest.raises(DeviceError, match=r"2 threads cannot be timed: .* 1 core") as error:
        Stopwatch(TwoThreads(half_shown))
    assert "taskset" in (error.value.hint or "")


def test_several_threads_are_timed_by_the_wall_clock(monkeypatch):
    """The calling thread only waits: its CPU time says nothing of what the others do."""
    machine = Machine(0.0)
    monkeypatch.setattr(timing.time, "thread_time_ns", lambda: 0)
    monkeypatch.setattr(timing.time, "perf_counter_ns", machine.clock)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: machine.now / 1e9)
    monkeypatch.setattr(timing.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    runtime = Runtime(machine)
    runtime.config = RuntimeConfig(threads=2)
    stopwatch = Stopwatch(runtime, Protocol())
    measured = stopwatch.measure(lambda: machine.spend(50_000))
    assert measured.ms == pytest.approx(0.05, rel=0.05)
    assert measured.ms == measured.wall_ms


def test_work_during_which_others_had_the_core_is_not_calm(stopwatch_on, monkeypatch):
    stopwatch, machine = stopwatch_on(0.0)
    assert stopwatch.calmly(lambda: machine.spend(100_000))
    lost = [0]
    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: machine.clock() + lost[0])

    def interrupted() -> None:
        machine.spend(100_000)
        lost[0] += 50_000

    assert not stopwatch.calmly(interrupted)
