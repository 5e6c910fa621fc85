"""Runs evaluations in worker processes on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from pydantic import Field

from hwnas.engine.executors import EXECUTORS, Executor, _worker
from hwnas.errors import HwnasError, TrialFailed
from hwnas.registry import PluginConfig


@EXECUTORS.register("process")
class Process(Executor):
    """Worker processes on this machine; one that dies is replaced and its work tried again once.

    Each worker is a pool of its own: in a shared pool one death breaks the work of all, and nobody
    knows whose fault it was.
    """

    class Config(PluginConfig):
        """Settings of `process`."""

        workers: int | None = Field(
            None, ge=1, le=1024, description="worker processes; null: one for each core"
        )
        threads: int = Field(1, ge=1, description="threads of each worker")

    config: Config

    def __init__(self, config: Config, function: Callable[..., Any]) -> None:
        super().__init__(config, function)
        try:
            payload = pickle.dumps(function)
        except Exception as error:
            raise HwnasError(
                f"the estimator cannot be sent to a worker process: {error}",
                "use the serial executor",
            ) from error
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._all = [_Slot(payload, config.threads) for _ in range(self.workers)]
        for slot in self._all:
            self._slots.put(slot)
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="hwnas-worker")

    @property
    def workers(self) -> int:
        """Number of processes."""
        return self.config.workers or len(os.sched_getaffinity(0))

    def submit(self, *arguments: Any) -> Future[Any]:
        """Run the function in the next free worker."""
        return self._threads.submit(self._run, arguments)

    def close(self) -> None:
        """Kill the workers."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for slot in self._all:
            slot.close()

    def _run(self, arguments: tuple[Any, ...]) -> Any:
        slot = self._slots.get()
        try:
            for _ in range(2):
                try:
                    return slot.call(arguments)
                except BrokenProcessPool:
                    continue
            raise TrialFailed(
                "the worker process died twice (killed, out of memory, or crashed)",
                "lower the number of workers or the batch size",
            )
        finally:
            self._slots.put(slot)


class _Slot:
    """One worker process, started on first use and again after a death."""

    def __init__(self, payload: bytes, threads: int) -> None:
        self._payload = payload
        self._threads = threads
        self._pool: ProcessPoolExecutor | None = None
        self._pid: int | None = None
        self._is_closed = False

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """Run the function in the process.

        Raises:
            BrokenProcessPool: The process died.
        """
        try:
            if self._is_closed:
                raise TrialFailed("given up: the run is ending")
            if self._pool is None:
                self._pool = self._start()
                # Known so that `close` can end a call in progress, which a pool does not offer.
                self._pid = self._pool.submit(os.getpid).result()
            return self._pool.submit(_worker.call, arguments).result()
        except BrokenProcessPool:
            if self._is_closed:
                raise TrialFailed("given up: the run is ending") from None
            if self._pool is not None:
                self._pool.shutdown(wait=True)
            self._pool = self._pid = None
            raise

    def close(self) -> None:
        """Kill the process."""
        self._is_closed = True
        pool, pid = self._pool, self._pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if pool is not None:
            pool.shutdown(wait=pid is not None, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1,
            # fork would copy locks held by torch's threads.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_worker.set_up,
            initargs=(self._payload, self._threads, os.getpid()),
        )
