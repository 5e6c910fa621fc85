"""The registry of converters, and what a converter gets: one call of the user's module.

A converter is a function that adds to the graph what one kind of call computes. It is found by the
call's name: ``nn.Conv2d`` for a module of `torch.nn`, ``reshape`` for ``torch.reshape``,
``Tensor.reshape`` and ``F.…``; or by the class of a module of one's own. Each file in
`hwnas.spaces.torch_modules.converters` is imported on first use, and so are the entry points of the
group ``hwnas.converters``; a user's model file may register more.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeAlias

from hwnas.graph.builder import GraphBuilder, Value
from hwnas.graph.op import Shape

if TYPE_CHECKING:
    from torch import nn

_PACKAGE = "hwnas.spaces.torch_modules.converters"
_REQUIRED = object()


class Unsupported(Exception):
    """A call that no converter can turn into ops; the message says what would be possible."""


@dataclass(frozen=True, slots=True)
class Traced:
    """A tensor of the user's forward pass.

    Attributes:
        value: Its place in the graph; the shape has no batch.
        batch: Which of its axes in PyTorch is the batch; None for parameters and constants, which
            are the same for every example.
    """

    value: Value
    batch: int | None

    @property
    def shape(self) -> Shape:
        """Shape without the batch."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """Number of axes in PyTorch, the batch included."""
        return len(self.shape) + (self.batch is not None)

    def axis(self, dim: int) -> int:
        """Return the axis without the batch of a dimension as PyTorch counts them.

        Raises:
            Unsupported: It is the batch.
        """
        dim = dim % self.ndim
        if dim == self.batch:
            raise Unsupported("works along the batch: examples must not depend on each other")
        return dim if self.batch is None or dim < self.batch else dim - 1


@dataclass
class Call:
    """One call in the user's forward pass.

    Attributes:
        g: Where ops are added.
        name: What is called.
        args: Positional arguments; tensors are `Traced`. A method's own tensor is the first.
        kwargs: Named arguments.
        result: Shape of the result in PyTorch; None if it is not one tensor.
        batch_size: The size that stands for the batch in shapes.
        module: The module, for a call of one.
        path: Where the module is, with the labels of choices: prefix of its weights.
        sources: Names of weights, and the tensor of the user's model that has the value.
    """

    g: GraphBuilder
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Shape | None
    batch_size: int
    module: Any = None
    path: str = ""
    own: str = ""
    sources: dict[str, str] = field(default_factory=dict)

    def arg(self, index: int, name: str, default: Any = _REQUIRED) -> Any:
        """Return an argument given by place or by name."""
        if index < len(self.args):
            return self.args[index]
        if name not in self.kwargs and default is _REQUIRED:
            raise Unsupported(f"lacks its argument {name}")
        return self.kwargs.get(name, default)

    def tensor(self, index: int = 0, name: str = "input") -> Traced:
        """Return an argument that is a tensor.

        Raises:
            Unsupported: It is something else.
        """
        found = self.arg(index, name)
        if not isinstance(found, Traced):
            raise Unsupported(f"takes a tensor as {name}, not {type(found).__name__}")
        return found

    def image(self) -> Traced:
        """Return the first argument, [N, C, H, W].

        Raises:
            Unsupported: It is something else.
        """
        x = self.tensor()
        if len(x.shape) != 3 or x.batch != 0:
            raise Unsupported("takes images [N, C, H, W]")
        return x

    def only(self, **expected: Any) -> None:
        """Refuse attributes of the module that differ from what can be converted.

        Raises:
            Unsupported: One does; all that can be is said.
        """
        for name, value in expected.items():
            found = getattr(self.module, name)
            if found != value:
                raise Unsupported(f"{name}={found!r} cannot be converted, {name}={value!r} can")

    def weights(self, shape: Shape, sources: Mapping[str, str], part: str = "") -> str:
        """Return the prefix of the op's weights, and note where their values are.

        Args:
            shape: Of the largest weight; it is part of the name, so that architectures with other
                widths use other weights.
            sources: Names within the op, and those of the tensors within the module; two with a
                ``+`` between them are added.
            part: Of the module, where it has several ops.
        """
        size = "x".join(map(str, shape))
        prefix = "/".join(filter(None, (self.path, part, size)))
        for local, attribute in sources.items():
            names = [f"{self.own}.{each}".removeprefix(".") for each in attribute.split("+")]
            self.sources[f"{prefix}/{local}"] = "+".join(names)
        return prefix

    def without_batch(self, shape: Shape, batch: int | None) -> Shape:
        """Return a shape of PyTorch without the batch."""
        return shape if batch is None else (*shape[:batch], *shape[batch + 1 :])

    def reshaped(self, value: Value, size: Shape) -> Value:
        """Return a value in another shape, without a reshape that would be undone."""
        from hwnas.graph.ops.layout import Reshape

        node = self.g.nodes[value.index]
        if isinstance(node.op, Reshape):
            value = Value(node.inputs[0], self.g.nodes[node.inputs[0]].shape)
        return value if value.shape == size else self.g.reshape(value, size=size)

    def fitted(self, x: Traced, shape: Shape, batch: int | None) -> Value:
        """Broadcast a tensor to a shape of PyTorch whose axis `batch` is the batch.

        Raises:
            Unsupported: Its batch is another axis.
        """
        missing = len(shape) - x.ndim
        sizes = list(x.shape)
        if x.batch is not None:
            if batch != x.batch + missing:
                raise Unsupported("puts tensors together whose batch is not the same axis")
            sizes.insert(x.batch, self.batch_size)
        aligned = (*[1] * missing, *sizes)
        if batch is not None and aligned[batch] not in (1, self.batch_size):
            raise Unsupported("works along the batch: examples must not depend on each other")
        value = self.reshaped(x.value, self.without_batch(aligned, batch))
        target = self.without_batch(shape, batch)
        return value if value.shape == target else self.g.expand(value, size=target)

    def common_batch(self, tensors: list[Traced], ndim: int) -> int | None:
        """Return the batch axis of a broadcast result with `ndim` axes."""
        for each in tensors:
            if each.batch is not None:
                return each.batch + ndim - each.ndim
        return None

    @property
    def shape(self) -> Shape:
        """Shape of the result in PyTorch.

        Raises:
            Unsupported: The result is not one tensor.
        """
        if self.result is None:
            raise Unsupported("returns no tensor")
        return self.result

    @property
    def values(self) -> int:
        """Number of values of the result for one example."""
        return math.prod(self.shape) // self.batch_size


Result: TypeAlias = "Traced | tuple[Result | None, ...]"
Converter: TypeAlias = Callable[[Call], Result]

_CONVERTERS: dict[str | type, Converter] = {}


def converts(*names: str | type) -> Callable[[Converter], Converter]:
    """Return a decorator that registers a converter for calls of these names or module classes."""

    def decorate(converter: Converter) -> Converter:
        for name in names:
            _CONVERTERS[name] = converter
        return converter

    return decorate


def converters() -> Mapping[str | type, Converter]:
    """Return all converters by the name, or class, of what they convert."""
    _load()
    return _CONVERTERS


def module_name(module: nn.Module) -> str:
    """Return the name under which a converter of a module is looked up."""
    return _name_in_torch(module) or type(module).__name__


def module_converter(module: nn.Module) -> Converter | None:
    """Return the converter of a module, or None: its `forward` is traced."""
    known = converters()
    return known.get(type(module)) or known.get(_name_in_torch(module) or "")


def _name_in_torch(module: nn.Module) -> str | None:
    """Return ``nn.X`` for a module, or one that inherits from it, that computes what X does."""
    kinds = type(module).__mro__
    defines = next(kind for kind in kinds if "forward" in kind.__dict__)
    if not defines.__module__.startswith("torch.nn"):
        return None
    kind = next(kind for kind in kinds if kind.__module__.startswith("torch.nn"))
    return f"nn.{kind.__name__}"


@cache
def _load() -> None:
    package = importlib.import_module(_PACKAGE)
    for each in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{_PACKAGE}.{each.name}")
    for entry_point in entry_points(group="hwnas.converters"):
        entry_point.load()
