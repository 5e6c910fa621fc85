from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from hwnas.engine.executors import EXECUTORS, Executor
from hwnas.errors import HwnasError, TrialFailed

# Workers unpickle the function by name, and a test module has none that they can import: so the
# function is a built-in, mostly `eval`.


def process(function: Any, workers: int = 2) -> Executor:
    kind = EXECUTORS.get("process")
    return kind(kind.Config(workers=workers), function)


def serial(function: Any) -> Executor:
    kind = EXECUTORS.get("serial")
    return kind(kind.Config(), function)


@pytest.mark.parametrize("make", [serial, process])
def test_results_and_errors_come_through_the_future(make: Any) -> None:
    with make(divmod) as executor:
        futures = [executor.submit(10, n) for n in (3, 0, 4)]
        wait(futures)
        assert futures[0].result() == (3, 1)
        assert isinstance(futures[1].exception(), ZeroDivisionError)
        assert futures[2].result() == (2, 2)


def test_serial_lets_ctrl_c_through() -> None:
    def press() -> None:
        raise KeyboardInterrupt

    with serial(press) as executor, pytest.raises(KeyboardInterrupt):
        executor.submit()


def test_worker_processes_are_others_run_at_once_and_use_one_thread() -> None:
    with process(eval) as executor:
        assert executor.workers == 2
        code = "__import__('time').sleep(0.3) or __import__('os').getpid()"
        pids = {each.result() for each in [executor.submit(code) for _ in range(2)]}
        assert len(pids) == 2
        assert os.getpid() not in pids
        threads = executor.submit("__import__('os').environ['OMP_NUM_THREADS']").result()
        assert threads == "1"


def test_a_worker_that_dies_costs_only_its_own_trial_and_only_after_a_second_attempt(
    tmp_path: Path,
) -> None:
    die = "__import__('os')._exit(9)"
    marker = tmp_path / "died"
    # Two steps in one expression: leave a mark, then die; with the mark there, live.
    path = f"__import__('pathlib').Path({str(marker)!r})"
    die_once = f"'alive' if {path}.exists() else ({path}.write_text('x'), {die})"
    with process(eval) as executor:
        always, once = executor.submit(die), executor.submit(die_once)
        others = [executor.submit(f"{n} + 1") for n in range(4)]
        with pytest.raises(TrialFailed, match="died twice"):
            always.result()
        assert once.result() == "alive"
        assert [each.result() for each in others] == [1, 2, 3, 4]


def test_closing_kills_what_is_under_way() -> None:
    executor = process(eval)
    pid = executor.submit("__import__('os').getpid()").result()
    for _ in range(3):
        executor.submit("__import__('time').sleep(60)")
    time.sleep(0.2)
    start = time.monotonic()
    executor.close()
    assert time.monotonic() - start < 5
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_workers_end_when_their_run_is_killed() -> None:
    code = (
        "from hwnas.engine.executors import EXECUTORS\n"
        "if __name__ == '__main__':\n"
        "    kind = EXECUTORS.get('process')\n"
        "    executor = kind(kind.Config(workers=1), eval)\n"
        "    print(executor.submit(\"__import__('os').getpid()\").result(), flush=True)\n"
        "    executor.submit(\"__import__('time').sleep(60)\").result()\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    worker = int(run.stdout.readline())
    run.send_signal(signal.SIGKILL)
    run.communicate()
    deadline = time.monotonic() + 10
    while is_running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    """Tell whether a process exists and is not just waiting to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_function_that_cannot_be_sent_is_refused_at_once() -> None:
    with pytest.raises(HwnasError, match="cannot be sent to a worker process"):
        process(lambda: 1)


def test_listing_executors_does_not_import_torch() -> None:
    code = (
        "import sys; from hwnas.engine.executors import EXECUTORS as e; "
        "from hwnas.estimators import ESTIMATORS as s; from hwnas.tracking import TRACKERS as t\n"
        "print(e.names(), s.names(), t.names())\n"
        "import hwnas.engine.run_folder, hwnas.engine.config\n"
        "assert not {'torch', 'sklearn', 'onnxruntime'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "'process', 'serial'" in done.stdout
