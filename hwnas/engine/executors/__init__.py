"""Executors: where independent evaluations run. One file an executor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, ClassVar, Self

from hwnas.registry import PluginConfig, Registry


class Executor(ABC):
    """Runs one function on many arguments, somewhere.

    Use it as a context manager, or call `close`.

    Args:
        config: The executor's settings.
        function: What to run. Executors that run it elsewhere need it, its arguments and its
            results to be picklable.
    """

    Config: ClassVar[type[PluginConfig]] = PluginConfig

    def __init__(self, config: PluginConfig, function: Callable[..., Any]) -> None:
        self.config = config
        self.function = function

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many calls run at once."""

    @abstractmethod
    def submit(self, *arguments: Any) -> Future[Any]:
        """Run the function on these arguments.

        The future raises what the function raised, or `TrialFailed` if the worker died of it twice.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop at once; calls that did not finish are given up."""

    def __enter__(self) -> Self:
        """Return the executor itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


EXECUTORS: Registry[Executor] = Registry("executor", "hwnas.engine.executors")
