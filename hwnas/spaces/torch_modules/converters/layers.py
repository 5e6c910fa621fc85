"""Norms, linear layers, dropout."""

from __future__ import annotations

import math

from hwnas.graph.ops.input import Input
from hwnas.spaces.torch_modules.converting import Call, Traced, Unsupported, converts


@converts("nn.BatchNorm2d", "nn.BatchNorm1d")
def batch_norm(call: Call) -> Traced:
    """Add a batch_norm. Which statistics it uses is the run's business, not the module's mode."""
    m, x = call.module, call.tensor()
    if x.batch != 0:
        raise Unsupported("takes the batch as its first axis")
    call.only(affine=True, track_running_stats=True)
    names = {"scale": "weight", "shift": "bias", "mean": "running_mean", "variance": "running_var"}
    weights = call.weights((m.num_features,), names)
    image = call.reshaped(x.value, (*x.shape, 1, 1)[:3])
    value = call.g.batch_norm(image, epsilon=m.eps, weights=weights)
    return Traced(call.reshaped(value, x.shape), 0)


@converts("nn.GroupNorm")
def group_norm(call: Call) -> Traced:
    """Add a layer_norm of each group; a product and a sum for each channel."""
    m, x = call.module, call.tensor()
    if x.batch != 0:
        raise Unsupported("takes the batch as its first axis")
    groups = call.reshaped(x.value, (m.num_groups, math.prod(x.shape) // m.num_groups))
    value = call.g.layer_norm(groups, axes=1, epsilon=m.eps, affine=False)
    value = call.reshaped(value, x.shape)
    if not m.affine:
        return Traced(value, 0)
    size = (m.num_channels, *[1] * (len(x.shape) - 1))
    for name, init, add in (("weight", "ones", call.g.multiply), ("bias", "zeros", call.g.sum)):
        weights = call.weights(size, {"value": name}, name)
        each = call.g.parameter(call.g.input, size=size, init=init, weights=weights)
        value = add(value, call.g.expand(each, size=x.shape))
    return Traced(value, 0)


@converts("nn.LayerNorm")
def layer_norm(call: Call) -> Traced:
    """Add a layer_norm over the last axes."""
    m, x = call.module, call.tensor()
    axes = len(m.normalized_shape)
    if x.batch is None or x.batch >= x.ndim - axes:
        raise Unsupported("normalises over the batch")
    if m.elementwise_affine and m.bias is None:
        raise Unsupported("bias=False cannot be converted")
    names = {"scale": "weight", "shift": "bias"} if m.elementwise_affine else {}
    value = call.g.layer_norm(
        x.value,
        axes=axes,
        epsilon=m.eps,
        affine=m.elementwise_affine,
        weights=call.weights(tuple(m.normalized_shape), names),
    )
    return Traced(value, x.batch)


@converts("layer_norm")
def layer_norm_function(call: Call) -> Traced:
    """Add a layer_norm without weights, a product and a sum with the given tensors."""
    x = call.tensor()
    axes = len(call.arg(1, "normalized_shape"))
    if x.batch is None or x.batch >= x.ndim - axes:
        raise Unsupported("normalises over the batch")
    value = call.g.layer_norm(x.value, axes=axes, epsilon=call.arg(4, "eps", 1e-5), affine=False)
    for place, name in ((2, "weight"), (3, "bias")):
        given = call.arg(place, name, None)
        if isinstance(given, Traced):
            other = call.fitted(given, call.shape, x.batch)
            value = call.g.multiply(value, other) if name == "weight" else call.g.sum(value, other)
    return Traced(value, x.batch)


@converts("nn.Embedding")
def embedding(call: Call) -> Traced:
    """Add an embedding of [N, T] tokens."""
    m, x = call.module, call.tensor()
    call.only(max_norm=None, padding_idx=None)
    weights = call.weights(tuple(m.weight.shape), {"weight": "weight"})
    value = call.g.embedding(
        x.value, vocabulary=m.num_embeddings, width=m.embedding_dim, weights=weights
    )
    return Traced(value, x.batch)


@converts("nn.Linear")
def linear(call: Call) -> Traced:
    """Add a linear over the last axis; leading axes become one."""
    m, x = call.module, call.tensor()
    return add_linear(call, x, tuple(m.weight.shape), has_bias=m.bias is not None)


def add_linear(
    call: Call,
    x: Traced,
    shape: tuple[int, ...],
    *,
    has_bias: bool,
    part: str = "",
    names: tuple[str, str] = ("weight", "bias"),
) -> Traced:
    """Add a linear whose weight [features, F] and bias have these names in the module."""
    if x.batch == x.ndim - 1:
        raise Unsupported("multiplies along the batch")
    sources = {"weight": names[0]} | ({"bias": names[1]} if has_bias else {})
    weights = call.weights(shape, sources, part)
    *leading, size = x.shape
    value = x.value
    if len(leading) > 1:
        value = call.reshaped(value, (math.prod(leading), size))
    value = call.g.linear(value, features=shape[0], bias=has_bias, weights=weights)
    if len(leading) > 1:
        value = call.reshaped(value, (*leading, shape[0]))
    return Traced(value, x.batch)


@converts("nn.Dropout", "dropout", "nn.Dropout2d", "dropout2d", "nn.Dropout1d", "dropout1d")
def dropout(call: Call) -> Traced:
    """Add a dropout; the run decides whether it drops."""
    x = call.tensor()
    if call.module is not None:
        rate, is_training = call.module.p, True
    else:
        rate, is_training = call.arg(1, "p", 0.5), call.arg(2, "training", default=True)
    if not rate or not is_training:
        return x
    if x.batch is None:
        raise Unsupported("drops from a parameter, the same for every example")
    channels = call.name.endswith("d")  # whole channels: dropout2d
    if channels and x.batch != 0:
        raise Unsupported("takes the batch as its first axis")
    return Traced(call.g.dropout(x.value, rate=float(rate), channels=channels), x.batch)


@converts("nn.Identity", "contiguous", "clone")
def identity(call: Call) -> Traced:
    """Add nothing."""
    return call.tensor()


@converts("float", "to")
def cast(call: Call) -> Traced:
    """Add nothing: the runs decide where and in which precision they compute."""
    x = call.tensor()
    is_float = call.g.nodes[x.value.index].op != Input("int64")
    wanted = [str(each) for each in (*call.args[1:], *call.kwargs.values())]
    if not is_float or any("torch." in each and each != "torch.float32" for each in wanted):
        raise Unsupported("changes the type of a tensor")
    return x
