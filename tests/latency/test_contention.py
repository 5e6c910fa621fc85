"""What Linux says about who else wanted the processor, from files as it writes them."""

from __future__ import annotations

import pytest

from hwnas.latency import contention
from hwnas.latency.contention import Watch


@pytest.fixture
def system(monkeypatch):
    files: dict[str, str] = {}
    now = {"ns": 0}
    monkeypatch.setattr(contention, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(contention.time, "perf_counter_ns", lambda: now["ns"])
    return files, now


def test_waiting_and_stolen_time_are_shares_of_the_time_that_passed(system):
    files, now = system
    files["/proc/thread-self/schedstat"] = "5000 1000 12\n"
    files["/proc/stat"] = "cpu  100 0 50 800 10 0 0 40 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    watch = Watch()
    now["ns"] = 10_000
    files["/proc/thread-self/schedstat"] = "9000 3500 20\n"
    files["/proc/stat"] = "cpu  150 0 60 830 10 0 0 50 0 0\n"
    files["/proc/cpuinfo"] = "model name : x\ncpu MHz\t\t: 2100.5\n"
    found = watch.since()
    assert (found.waited, found.stolen, found.mhz) == (0.25, 0.1, 2100.5)


def test_a_system_that_does_not_tell_is_not_guessed_about(system):
    found = Watch().since()
    assert (found.waited, found.stolen, found.mhz) == (None, None, None)
