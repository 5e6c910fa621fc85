"""Traces a module with `torch.fx`, with every shape known on the way.

Plain symbolic tracing knows no shapes, so that ``b, n, c = x.shape`` followed by arithmetic or a
condition fails. Here each step is also computed on the meta device, which has shapes and no values;
``x.shape`` is an ordinary tuple. The batch is `BATCH`, a size that no network has, so that it can
be told from other axes wherever it goes.
"""

from __future__ import annotations

import operator
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from hwnas.errors import UserInputError
from hwnas.spaces.torch_modules.converting import module_converter

#: Stands for the batch; prime, so that no product of sizes equals it.
BATCH = 7919

_KEEPING = (
    *(nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh),
    *(nn.Dropout, nn.Identity),
)
#: Modules of PyTorch whose `forward` is followed, as that of the user's own.
_TRACED = (nn.Sequential, nn.TransformerEncoder, nn.TransformerEncoderLayer)
_ARITHMETIC = {
    *(operator.add, operator.sub, operator.mul, operator.truediv),
    *(operator.iadd, operator.isub, operator.imul, operator.itruediv),
}

_OURS = str(Path(__file__).parents[2])
_TORCHS = str(Path(torch.__file__).parent)


class _Proxy(fx.Proxy):
    """A proxy that knows its shape."""

    @property
    def _meta(self) -> Any:
        return self.node.meta["value"]

    @property
    def shape(self) -> Any:
        return self._meta.shape

    @property
    def ndim(self) -> int:
        return int(self._meta.ndim)

    @property
    def dtype(self) -> Any:
        return self._meta.dtype

    @property
    def is_nested(self) -> bool:
        return False

    @property
    def device(self) -> Any:
        return self._meta.device

    def size(self, dim: int | None = None) -> Any:
        return self._meta.size() if dim is None else self._meta.size(dim)

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        return int(self._meta.numel())

    def __len__(self) -> int:
        return len(self._meta)

    # Without these, Python would record `x += y` as a sum that leaves the old `x` as it was.
    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.itruediv, other)

    def _in_place(self, target: Any, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", target, (self, other), {})


class _Outer(nn.Module):
    """Calls the model with one tensor, so that other arguments of `forward` keep their defaults."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any) -> Any:
        return self.net(x)


class Tracer(fx.Tracer):
    """Records the calls of a module whose parameters are on the meta device."""

    def __init__(self, input_shape: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__()
        self._input = torch.empty(BATCH, *input_shape, device="meta", dtype=dtype)
        self._is_computing = False
        self._tensors: dict[str, torch.Tensor] = {}

    def run(self, module: nn.Module) -> fx.Graph:
        """Return the graph of a module; the targets start with ``net.``.

        Raises:
            UserInputError: The module cannot be traced; the message names the line.
        """
        outer = _Outer(module)
        self._tensors = {
            **dict(outer.named_parameters(remove_duplicate=False)),
            **dict(outer.named_buffers()),
        }
        try:
            with (
                torch.no_grad(),
                warnings.catch_warnings(),
            ):  # such as PyTorch's on slow kernels: nothing runs here
                warnings.simplefilter("ignore")
                return self.trace(outer)
        except UserInputError:
            raise
        except fx.proxy.TraceError as error:
            raise UserInputError(
                f"{_place(error)}: the network would depend on the values of its data: {error}",
                "decide by shapes, or in __init__ with hwnas.choice and hwnas.one_of; if, for and "
                "while cannot ask what is inside a tensor",
            ) from error
        except Exception as error:
            raise UserInputError(
                f"{_place(error)}: {type(error).__name__}: {error}",
                "the model must run with this architecture before it can be converted",
            ) from error

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a module is converted as a whole."""
        return module_converter(m) is not None or (
            type(m).__module__.startswith("torch.nn") and not isinstance(m, _TRACED)
        )

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return a proxy with a shape."""
        return _Proxy(node, self)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Iterate over as many parts as there are."""
        return iter([operator.getitem(obj, i) for i in range(len(obj.node.meta["value"]))])

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return a proxy for a parameter, except while a shape is computed."""
        if self._is_computing:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Record the call, except while a shape is computed."""
        if self._is_computing:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Record a step with the shape of its result and its place in the user's code."""
        node = super().create_node(*args, **kwargs)
        node.meta["place"] = _caller()
        self._is_computing = True
        try:
            node.meta["value"] = self._compute(node)
        finally:
            self._is_computing = False
        return node

    def _compute(self, node: fx.Node) -> Any:
        args = fx.node.map_arg(node.args, lambda each: each.meta["value"])
        kwargs = fx.node.map_arg(node.kwargs, lambda each: each.meta["value"])
        target: Any = node.target
        if node.op == "placeholder":
            return self._input
        if node.op == "get_attr":
            value = self._tensors.get(target)
            return (operator.attrgetter(target)(self.root) if value is None else value).to("meta")
        if node.op == "output":
            return None
        quick = self._quick(node, args)
        if quick is not None:
            return quick
        try:
            if node.op == "call_module":
                return self.root.get_submodule(target)(*args, **kwargs)
            if node.op == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            return target(*args, **kwargs)
        except Exception as error:
            text = str(error).split("\n")[0]
            raise UserInputError(
                f"{node.meta['place']}: {_what(node, args)}: {text}",
                "only shapes are known while the network is made, not values"
                if "meta" in text
                else "the model must run for every architecture of its space",
            ) from error

    def _quick(self, node: fx.Node, args: tuple[Any, ...]) -> Any:
        """Return the shape of a frequent call, or None: PyTorch's own rules take up to 4 ms."""
        x = args[0] if args else None
        if not isinstance(x, torch.Tensor):
            return None
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            if isinstance(module, nn.MultiheadAttention):
                return _attention_shape(module, args, node.kwargs)
            return None if node.kwargs else _shape_of(module, x)
        if node.target == "to" and isinstance(args[-1], (str, torch.device)):
            return x.detach()  # whatever it moves to, here it has no values
        if node.target in _ARITHMETIC and not node.kwargs:
            other = args[1]
            fits = isinstance(other, torch.Tensor) and other.shape == x.shape
            if x.is_floating_point() and (fits or isinstance(other, (int, float))):
                return x.detach()
        return None


def _shape_of(module: nn.Module, x: torch.Tensor) -> torch.Tensor | None:
    size = x.shape
    if isinstance(module, nn.LayerNorm):
        expected = tuple(module.normalized_shape)
        return x.detach() if tuple(size[-len(expected) :]) == expected else None
    if isinstance(module, nn.BatchNorm2d):
        return x.detach() if len(size) == 4 and size[1] == module.num_features else None
    if isinstance(module, nn.Linear):
        fits = size[-1] == module.in_features
        return x.new_empty((*size[:-1], module.out_features)) if fits else None
    return x.detach() if isinstance(module, _KEEPING) else None


def _attention_shape(
    module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[torch.Tensor, None] | None:
    """Return the shapes of plain self-attention."""
    x = args[0]
    fits = x.ndim == 3 and x.shape[-1] == module.embed_dim and len(args) == 3
    if not fits or any(each is not x for each in args) or kwargs != {"need_weights": False}:
        return None
    return x.detach(), None


def _what(node: fx.Node, args: tuple[Any, ...]) -> str:
    """Return a call as a user may know it, with the shapes that it gets."""
    shapes = [
        "×".join("N" if size == BATCH else str(size) for size in each.shape) or "a number"
        for each in args
        if isinstance(each, torch.Tensor)
    ]
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return f"{str(name).removeprefix('net.')} of {' and '.join(shapes)}"


def _caller() -> str:
    frame = sys._getframe(2)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_OURS, _TORCHS, "<")):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return "the model"


def _place(error: BaseException) -> str:
    """Return the innermost line of the user's code."""
    for each in reversed(traceback.extract_tb(error.__traceback__)):
        if not each.filename.startswith((_OURS, _TORCHS, "<")):
            return f"{each.filename}:{each.lineno}"
    return "the model"
