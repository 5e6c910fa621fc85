"""Rows of a benchmark, and the interleaved timing behind them."""

from __future__ import annotations

import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from hwnas import _core, kernels
from hwnas.latency.device import Device, host_state

#: Runs of each contender before the first one that counts.
WARM_UPS = 3
#: One warm-up is enough where a turn takes longer.
LONG_S = 5.0
#: With fewer repeats than these a row says so by itself: the number stands in `against`.
FEWEST_REPEATS = 5


@dataclass(frozen=True)
class Settings:
    """How everything is measured.

    Attributes:
        device: ``cpu`` or ``cuda``.
        backend: Kernel backend that is judged.
        repeats: Interleaved repeats of each row.
        row_s: Wall seconds after which a case gets fewer repeats than that.
        has_compile: Whether torch.compile is among the baselines.
        warm_ups: Runs of each contender before the first one that counts.
        cores: Those that this process may use; empty where the system does not say.
    """

    device: str = "cpu"
    backend: str = "cpu"
    repeats: int = 30
    row_s: float = 450.0
    has_compile: bool = True
    warm_ups: int = WARM_UPS
    cores: tuple[int, ...] = ()


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: Op, shape and what it is compared with.
        value: The figure, None if it could not be measured.
        unit: ``x`` for a ratio of times (how many times faster), else what `value` counts.
        goal: What is asked for, None if nothing is.
        met: Whether `value` reaches `goal`; None if it cannot be said.
        p20: 20 % quantile over the repeats.
        p50: Median over the repeats.
        p80: 80 % quantile over the repeats.
        against: The baseline and both medians, or why there is no figure.
    """

    name: str
    value: float | None
    unit: str
    goal: float | None
    met: bool | None
    p20: float | None
    p50: float | None
    p80: float | None
    against: str

    @classmethod
    def of(
        cls,
        name: str,
        samples: Sequence[float],
        unit: str,
        goal: float | None,
        against: str,
        *,
        is_limit: bool = False,
    ) -> Row:
        """Summarise samples; a goal that `is_limit` is met from below."""
        p20, p50, p80 = (float(each) for each in np.quantile(samples, [0.2, 0.5, 0.8]))
        met = None if goal is None else (p50 <= goal if is_limit else p50 >= goal)
        return cls(name, p50, unit, goal, met, p20, p50, p80, against)

    @classmethod
    def missing(cls, name: str, unit: str, goal: float | None, reason: str) -> Row:
        """Return the row of a figure that could not be measured."""
        return cls(name, None, unit, goal, None, None, None, None, f"not measured: {reason}")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object, numbers rounded to four digits."""
        return {
            key: float(f"{value:.4g}") if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Contender:
    """Something that is timed.

    Attributes:
        run: Does it once.
        backend: Kernel backend that is forced meanwhile; None leaves the choice to hwnas.
    """

    run: Callable[[], object]
    backend: str | None = None

    def __call__(self) -> None:
        """Do it once, with the backend."""
        with kernels.use(self.backend):
            self.run()


@dataclass(frozen=True)
class Timings:
    """Milliseconds of each contender; place i of all lists is one turn of the interleaving."""

    ms: Mapping[str, Sequence[float]]
    clock: str

    def median(self, name: str) -> float:
        """Return a contender's median."""
        return float(np.median(self.ms[name]))

    def ratios(self, slow: str, fast: str) -> list[float]:
        """Return how many times faster `fast` was, for each turn."""
        return [a / b for a, b in zip(self.ms[slow], self.ms[fast], strict=True)]

    def row(self, name: str, slow: str, goal: float | None, fast: str = "fused") -> Row:
        """Return the row that says how many times faster `fast` is than `slow`."""
        against = (
            f"{slow}, {self.median(slow):.2f} ms; {fast}, {self.median(fast):.2f} ms; medians of "
            f"{len(self.ms[fast])} interleaved turns, {self.clock}"
        )
        return Row.of(name, self.ratios(slow, fast), "x", goal, against)


def interleave(
    contenders: Mapping[str, Contender], settings: Settings, *, wall: bool = False
) -> Timings:
    """Time contenders in turns, so that what disturbs the machine hits all of them alike.

    On the CPU the clock is the process's CPU time, which other processes do not add to; on a GPU,
    and with `wall`, it is the time from synchronisation to synchronisation.

    Args:
        contenders: What is timed, by name.
        settings: Device and number of repeats.
        wall: Use the wall clock.
    """
    on_gpu = settings.device != "cpu"
    clock = time.perf_counter if wall or on_gpu else time.process_time

    def once(contender: Contender) -> float:
        if on_gpu:
            torch.cuda.synchronize()
        start = clock()
        contender()
        if on_gpu:
            torch.cuda.synchronize()
        return (clock() - start) * 1e3

    for _ in range(settings.warm_ups):
        started = time.perf_counter()
        for contender in contenders.values():
            once(contender)
        turn_s = time.perf_counter() - started
        if turn_s > LONG_S:
            break  # caches, allocators and code are warm after one of these
    affordable = math.floor(settings.row_s / max(turn_s, 1e-9))
    repeats = min(settings.repeats, max(FEWEST_REPEATS, affordable))
    names = list(contenders)
    ms: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        at = turn % len(names)  # each goes first as often as any other
        for name in names[at:] + names[:at]:
            ms[name].append(once(contenders[name]))
    return Timings(ms, "wall time" if wall or on_gpu else "CPU time")


def say(message: str) -> None:
    """Tell whoever waits how far it is."""
    print(message, file=sys.stderr, flush=True)


def usable_cores() -> tuple[int, ...]:
    """Return the cores that this process may use; empty where the system does not say."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def run_on(settings: Settings, count: int) -> None:
    """Pin this process to its first `count` cores, and give PyTorch as many threads."""
    torch.set_num_threads(count)
    if settings.cores:
        os.sched_setaffinity(0, settings.cores[:count])


def machine(settings: Settings) -> dict[str, Any]:
    """Return what the figures were measured on and with."""
    print_of = Device.here().fingerprint
    found: dict[str, Any] = {
        "cpu": print_of.cpu,
        "isa": list(print_of.isa),
        "physical_cores": print_of.physical_cores,
        "logical_cores": print_of.logical_cores,
        "cache_kib": print_of.cache_kib,
        "os": print_of.os,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernels": settings.backend,
        "kernels_isa": _core.isa(),
        "threads": torch.get_num_threads(),
        "malloc": {key: value for key, value in os.environ.items() if key.startswith("MALLOC_")},
        **host_state(),
    }
    if settings.device != "cpu":
        major, minor = torch.cuda.get_device_capability()
        found["gpu"] = f"{torch.cuda.get_device_name()} (sm_{major}{minor})"
        found["cuda"] = torch.version.cuda
    return found
