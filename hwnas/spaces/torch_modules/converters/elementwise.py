"""Activations, and arithmetic of tensors and numbers."""

from __future__ import annotations

from typing import Any

from hwnas.spaces.torch_modules.converting import Call, Traced, Unsupported, converts

_ACTIVATIONS = {
    "nn.ReLU": "relu",
    "relu": "relu",
    "nn.ReLU6": "relu6",
    "relu6": "relu6",
    "nn.GELU": "gelu",
    "gelu": "gelu",
    "nn.SiLU": "swish",
    "silu": "swish",
    "nn.Hardswish": "hard_swish",
    "hardswish": "hard_swish",
    "nn.Hardsigmoid": "hard_sigmoid",
    "hardsigmoid": "hard_sigmoid",
    "nn.Sigmoid": "sigmoid",
    "sigmoid": "sigmoid",
    "nn.Tanh": "tanh",
    "tanh": "tanh",
}


@converts(*_ACTIVATIONS)
def activation(call: Call) -> Traced:
    """Add an activation."""
    x = call.tensor()
    kind = _ACTIVATIONS[call.name]
    if kind == "gelu":
        exact = call.module.approximate if call.module else call.arg(1, "approximate", "none")
        if exact != "none":
            raise Unsupported(f"approximate={exact!r} cannot be converted, 'none' can")
    return Traced(getattr(call.g, kind)(x.value), x.batch)


@converts("nn.LeakyReLU", "leaky_relu", "nn.ELU", "elu")
def activation_with_number(call: Call) -> Traced:
    """Add a leaky_relu or an elu."""
    x, is_elu = call.tensor(), call.name in ("nn.ELU", "elu")
    name, default = ("alpha", 1.0) if is_elu else ("negative_slope", 0.01)
    number = getattr(call.module, name) if call.module else call.arg(1, name, default)
    if is_elu:
        return Traced(call.g.elu(x.value, alpha=float(number)), x.batch)
    return Traced(call.g.leaky_relu(x.value, slope=float(number)), x.batch)


@converts("nn.Softmax", "softmax")
def softmax(call: Call) -> Traced:
    """Add a softmax."""
    x = call.tensor()
    dim = call.module.dim if call.module is not None else call.arg(1, "dim")
    if dim is None:
        raise Unsupported("needs its dim")
    return Traced(call.g.softmax(x.value, axis=x.axis(dim)), x.batch)


@converts("add", "iadd", "sub", "isub", "subtract")
def add(call: Call) -> Traced:
    """Add a sum; a difference is a sum with the negative."""
    if call.arg(2, "alpha", 1) != 1:
        raise Unsupported("alpha cannot be converted: multiply first")
    a, b = call.arg(0, "input"), call.arg(1, "other")
    if "sub" in call.name:
        b = _scaled(call, b, -1.0)
    if isinstance(a, Traced) and isinstance(b, Traced):
        return _both(call, a, b, "sum")
    x, number = (a, b) if isinstance(a, Traced) else (b, a)
    value = _number(call, number)
    # Python's sum() begins with 0.
    return Traced(call.g.add_constant(x.value, value=value), x.batch) if value else x


@converts("mul", "imul", "multiply")
def multiply(call: Call) -> Traced:
    """Add a product."""
    a, b = call.arg(0, "input"), call.arg(1, "other")
    if isinstance(a, Traced) and isinstance(b, Traced):
        return _both(call, a, b, "multiply")
    scaled: Traced = _scaled(call, a, b) if isinstance(a, Traced) else _scaled(call, b, a)
    return scaled


@converts("truediv", "itruediv", "div", "divide")
def divide(call: Call) -> Traced:
    """Add a product with the inverse of a number."""
    x, number = call.arg(0, "input"), call.arg(1, "other")
    if not isinstance(x, Traced) or isinstance(number, Traced):
        raise Unsupported("can only divide a tensor by a number")
    return Traced(call.g.scale(x.value, factor=1 / _number(call, number)), x.batch)


@converts("neg", "negative")
def negative(call: Call) -> Traced:
    """Add a product with -1."""
    x = call.tensor()
    return Traced(call.g.scale(x.value, factor=-1.0), x.batch)


def _both(call: Call, a: Traced, b: Traced, kind: str) -> Traced:
    batch = call.common_batch([a, b], len(call.shape))
    values = [call.fitted(each, call.shape, batch) for each in (a, b)]
    return Traced(getattr(call.g, kind)(*values), batch)


def _scaled(call: Call, x: Any, factor: Any) -> Any:
    if isinstance(x, Traced):
        return Traced(call.g.scale(x.value, factor=_number(call, factor)), x.batch)
    return _number(call, x) * factor


def _number(call: Call, number: Any) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise Unsupported(f"takes a tensor or a number, not {type(number).__name__}")
    if number == call.batch_size:
        raise Unsupported("computes with the size of the batch")
    return float(number)
