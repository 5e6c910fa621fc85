"""Who else wanted the processor while something was measured, as far as Linux tells."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Contention:
    """Shares of the time since a moment; None where the system does not say.

    Attributes:
        waited: This thread was ready to run but waited for a core: others here were running.
        stolen: The host gave the cores to other virtual machines.
        mhz: Clock of the first core now.
    """

    waited: float | None
    stolen: float | None
    mhz: float | None


class Watch:
    """Starts watching when it is made, on the thread that makes it."""

    def __init__(self) -> None:
        self._started = time.perf_counter_ns()
        self._waited_ns = _waited_ns()
        self._stolen, self._all = _ticks()

    def since(self) -> Contention:
        """Return what happened until now."""
        passed = max(time.perf_counter_ns() - self._started, 1)
        waited = _waited_ns()
        stolen, ticks = _ticks()
        return Contention(
            waited=None
            if waited is None or self._waited_ns is None
            else round((waited - self._waited_ns) / passed, 4),
            stolen=None
            if stolen is None or self._stolen is None or ticks <= self._all
            else round((stolen - self._stolen) / (ticks - self._all), 4),
            mhz=_mhz(),
        )


def _waited_ns() -> int | None:
    """Return how long the thread has waited in run queues (Linux, sched-stats: second field)."""
    fields = _read("/proc/thread-self/schedstat").split()
    return int(fields[1]) if len(fields) > 1 else None


def _ticks() -> tuple[int | None, int]:
    """Return the stolen ticks of all cores (proc(5), /proc/stat: eighth field) and all ticks."""
    fields = _read("/proc/stat").partition("\n")[0].split()[1:9]
    numbers = [int(each) for each in fields]
    return (numbers[7] if len(numbers) == 8 else None), sum(numbers)


def _mhz() -> float | None:
    match = re.search(r"cpu MHz\s*:\s*([\d.]+)", _read("/proc/cpuinfo"))
    return float(match[1]) if match else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
