"""Runtimes that networks are measured on: one file a runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import Field

from hwnas.errors import DeviceError
from hwnas.registry import PluginConfig, Registry

if TYPE_CHECKING:
    from onnx import ModelProto

    from hwnas.latency.kernels import Executed, Kernel


class TensorType(NamedTuple):
    """Element type (an `onnx.TensorProto` number) and shape of a tensor."""

    dtype: int
    shape: tuple[int, ...]


class RuntimeConfig(PluginConfig):
    """Settings that every runtime has."""

    threads: int = Field(1, ge=1, description="threads that one inference uses")


class Inside(NamedTuple):
    """A network that tells how long each of its kernels takes while it runs.

    Attributes:
        signatures: Its kernels, as `Runtime.kernels` would return them.
        run: Runs the network once.
        read: Returns the mean milliseconds of each kernel over the runs since it was last called.
    """

    signatures: Sequence[str]
    run: Callable[[], object]
    read: Callable[[], Sequence[float]]


class Runtime(ABC):
    """A runtime: it says what it makes of a network, and runs it.

    Args:
        config: The runtime's settings.
    """

    Config: ClassVar[type[RuntimeConfig]] = RuntimeConfig
    #: Data type of weights and activations.
    precision: ClassVar[str] = "fp32"
    #: Whether kernels are timed inside whole networks (`inside`) or each on its own
    #: (`prepare_kernel`).
    is_timed_inside: ClassVar[bool] = False

    def __init__(self, config: RuntimeConfig) -> None:
        self.config = config

    @property
    @abstractmethod
    def provider(self) -> str:
        """Name of the back end that runs the kernels."""

    @classmethod
    def clock(cls, threads: int) -> Literal["thread", "wall"]:
        """Return what shows the work of one inference.

        ``thread`` is the CPU time of the thread that asks for it, which neighbours hardly disturb;
        it is right only where that thread does all the work.
        """
        return "thread" if threads == 1 else "wall"

    @property
    def default_provider(self) -> str:
        """The back end that is used where none is named."""
        field = self.Config.model_fields.get("provider")
        return self.provider if field is None else str(field.default)

    @abstractmethod
    def version(self) -> str:
        """Return the runtime's version.

        Raises:
            DeviceError: The runtime is not installed, or lacks the provider.
        """

    @abstractmethod
    def kernels(self, model: ModelProto) -> list[Executed]:
        """Return the kernels that the runtime would really execute, after all its fusions.

        Raises:
            DeviceError: The runtime refuses the model.
        """

    @abstractmethod
    def prepare(self, model: ModelProto, *, optimise: bool) -> Callable[[], object]:
        """Return a function that runs the model once on fixed random input.

        Args:
            model: The model.
            optimise: Whether to optimise it; a model that `optimise` has returned is run as it is.

        Raises:
            DeviceError: The runtime refuses the model, or its outputs are not finite.
        """

    def optimise(self, model: ModelProto) -> ModelProto:
        """Return what `prepare` is given to run `model` many times: here the model itself.

        Raises:
            DeviceError: The runtime refuses the model.
        """
        return model

    def prepare_kernel(self, kernel: Kernel) -> Callable[[], object]:
        """Return a function that runs one kernel on its own.

        Raises:
            DeviceError: The kernel cannot be rebuilt, or the runtime refuses it.
        """
        return self.prepare(kernel.to_model(), optimise=False)

    def inside(self, model: ModelProto) -> Inside:
        """Return a network whose kernels can be timed while it runs.

        Raises:
            DeviceError: The runtime cannot do that, or refuses the model.
        """
        raise DeviceError(f"{type(self).__name__} does not tell the times of its kernels")


RUNTIMES: Registry[Runtime] = Registry("runtime", "hwnas.latency.runtimes")
