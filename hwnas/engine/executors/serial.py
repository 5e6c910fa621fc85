"""Runs evaluations one after the other in this process."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from hwnas.engine.executors import EXECUTORS, Executor
from hwnas.registry import PluginConfig


@EXECUTORS.register("serial")
class Serial(Executor):
    """One evaluation after the other in this process; the only one whose runs repeat exactly."""

    class Config(PluginConfig):
        """It has no settings."""

    @property
    def workers(self) -> int:
        """One."""
        return 1

    def submit(self, *arguments: Any) -> Future[Any]:
        """Run the function before returning."""
        future: Future[Any] = Future()
        try:
            future.set_result(self.function(*arguments))
        except Exception as error:  # the caller takes it out of the future
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Do nothing: no call outlives `submit`."""
