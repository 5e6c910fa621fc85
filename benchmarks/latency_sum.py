"""Price many architectures at once: `hwnas._core.sum_latencies` against numpy on one thread.

The workload is that of a search in `enas_micro`: a table of 4,000 kernels, architectures of 150
kernels each. The numpy line is the fastest plain numpy form of the same sum. Prints CSV.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from hwnas._core import sum_latencies

TABLE_SIZE = 4_000
KERNELS_EACH = 150
REPEATS = 30


def quantiles_ms(run: Callable[[], object]) -> tuple[float, float, float]:
    """Return the 20 %, 50 % and 80 % quantiles of the CPU time of `run`, in ms."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.thread_time_ns()
        run()
        times.append((time.thread_time_ns() - start) / 1e6)
    p20, p50, p80 = np.quantile(times, [0.2, 0.5, 0.8])
    return float(p20), float(p50), float(p80)


def main() -> int:
    """Check that both forms agree, then time them; a speed is never printed on a wrong result."""
    rng = np.random.default_rng(0)
    table = rng.gamma(1.0, 0.05, TABLE_SIZE)
    print("case,provider,p20_ms,p50_ms,p80_ms,architectures_per_s,machine,timestamp")
    for count in (1, 100, 10_000):
        ids = rng.integers(0, TABLE_SIZE, count * KERNELS_EACH, dtype=np.int32)
        offsets = np.arange(0, ids.size + 1, KERNELS_EACH, dtype=np.int64)
        providers: dict[str, Callable[[], np.ndarray]] = {
            "hwnas._core": lambda ids=ids, offsets=offsets: sum_latencies(table, ids, offsets),
            "numpy": lambda ids=ids, offsets=offsets: np.add.reduceat(table[ids], offsets[:-1]),
        }
        first, second = (run() for run in providers.values())
        np.testing.assert_allclose(first, second, rtol=1e-12)
        for name, run in providers.items():
            p20, p50, p80 = quantiles_ms(run)
            per_s = count / (p50 / 1e3)
            stamp = datetime.now(UTC).isoformat(timespec="seconds")
            print(
                f"{count} architectures,{name},{p20:.4f},{p50:.4f},{p80:.4f},{per_s:.0f},"
                f"{platform.machine()},{stamp}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
