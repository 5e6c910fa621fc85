"""Runtimes that networks are measured on: one file a runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pydantic import Field

from hwnas.registry import PluginConfig, Registry

if TYPE_CHECKING:
    from onnx import ModelProto


class TensorType(NamedTuple):
    """Element type (an `onnx.TensorProto` number) and shape of a tensor."""

    dtype: int
    shape: tuple[int, ...]


class RuntimeConfig(PluginConfig):
    """Settings that every runtime has."""

    threads: int = Field(1, ge=1, description="threads that one inference uses")


class Runtime(ABC):
    """A runtime: it says what it makes of a network, and runs it.

    Args:
        config: The runtime's settings.
    """

    Config: ClassVar[type[RuntimeConfig]] = RuntimeConfig

    def __init__(self, config: RuntimeConfig) -> None:
        self.config = config

    @property
    @abstractmethod
    def provider(self) -> str:
        """Name of the back end that runs the kernels."""

    @abstractmethod
    def version(self) -> str:
        """Return the runtime's version.

        Raises:
            DeviceError: The runtime is not installed.
        """

    @abstractmethod
    def optimise(self, model: ModelProto) -> ModelProto:
        """Return the graph that the runtime would really execute, after all its fusions.

        Raises:
            DeviceError: The runtime refuses the model.
        """

    @abstractmethod
    def tensor_types(self, model: ModelProto) -> Mapping[str, TensorType]:
        """Return type and shape of every activation of an optimised model.

        Raises:
            DeviceError: The runtime refuses the model.
        """

    @abstractmethod
    def prepare(self, model: ModelProto, *, optimise: bool) -> Callable[[], object]:
        """Return a function that runs the model once on fixed random input.

        Args:
            model: The model.
            optimise: Whether to optimise it; a model of a single kernel is run as it is.

        Raises:
            DeviceError: The runtime refuses the model, or its outputs are not finite.
        """


RUNTIMES: Registry[Runtime] = Registry("runtime", "hwnas.latency.runtimes")
