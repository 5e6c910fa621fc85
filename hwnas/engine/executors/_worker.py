"""What runs inside a worker process."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from hwnas.errors import TrialFailed


class _Work:
    """The function of this process, or why there is none."""

    function: Callable[..., Any] | None = None
    failure = "the worker was not set up"


def set_up(payload: bytes, threads: int, parent: int) -> None:
    """Prepare this process: thread count, signals, and the function to run.

    Args:
        payload: The pickled function. It is unpickled here and not by the process start-up, since
            unpickling it may import torch, which reads the thread count from the environment.
        threads: Threads for numerical libraries.
        parent: Process id of the run; the worker ends when that process is gone.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    # Ctrl-C goes to the whole terminal group; the run decides what happens to its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        _Work.function = pickle.loads(payload)  # written by our own parent process
    except Exception as error:  # raising here would look like a death
        _Work.failure = f"{type(error).__name__}: {error}"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def call(arguments: tuple[Any, ...]) -> Any:
    """Run the function that `set_up` received."""
    if _Work.function is None:
        raise TrialFailed(f"a worker process could not load the estimator: {_Work.failure}")
    return _Work.function(*arguments)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
