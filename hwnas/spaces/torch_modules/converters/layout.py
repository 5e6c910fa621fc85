"""Reshaping, reordering, cutting and joining. PyTorch's own shapes say where everything goes."""

from __future__ import annotations

import math
from typing import Any

from hwnas.graph.op import Shape
from hwnas.spaces.torch_modules.converting import Call, Traced, Unsupported, converts


@converts(
    "reshape", "view", "flatten", "unflatten", "unsqueeze", "squeeze", "nn.Flatten", "nn.Unflatten"
)
def reshape(call: Call) -> Traced:
    """Add a reshape; the batch must stay an axis of its own."""
    x = call.tensor()
    batch = _batch_after(call, x, call.shape)
    return Traced(call.reshaped(x.value, call.without_batch(call.shape, batch)), batch)


def _batch_after(call: Call, x: Traced, shape: Shape) -> int | None:
    if x.batch is None:
        return None
    before = math.prod(x.shape[: x.batch])
    for axis, size in enumerate(shape):
        if size == call.batch_size and math.prod(shape[:axis]) == before:
            return axis
    raise Unsupported("puts the batch into one axis with others: keep it an axis of its own")


@converts("expand", "expand_as", "repeat")
def expand(call: Call) -> Traced:
    """Add an expand."""
    x = call.tensor()
    if call.name == "repeat":
        _refuse_tiling(call, x)
    missing = len(call.shape) - x.ndim
    batch = None if x.batch is None else x.batch + missing
    if batch is None and call.batch_size in call.shape:
        batch = call.shape.index(call.batch_size)
    return Traced(call.fitted(x, call.shape, batch), batch)


def _refuse_tiling(call: Call, x: Traced) -> None:
    sizes = list(x.shape)
    if x.batch is not None:
        sizes.insert(x.batch, call.batch_size)
    sizes = [1] * (len(call.shape) - len(sizes)) + sizes
    if any(a not in (1, b) for a, b in zip(sizes, call.shape, strict=True)):
        raise Unsupported("can only repeat axes of size 1")


@converts("permute", "transpose", "swapaxes", "movedim")
def permute(call: Call) -> Traced:
    """Add a permute."""
    x = call.tensor()
    order = list(range(x.ndim))
    if call.name == "movedim":
        raise Unsupported("cannot be converted: use permute")
    if call.name == "permute":
        given = call.args[1:] if len(call.args) > 1 else (call.kwargs["dims"],)
        dims = given[0] if isinstance(given[0], (tuple, list)) else given
        order = [dim % x.ndim for dim in dims]
    else:
        a, b = call.arg(1, "dim0") % x.ndim, call.arg(2, "dim1") % x.ndim
        order[a], order[b] = b, a
    axes = tuple(x.axis(dim) for dim in order if dim != x.batch)
    batch = None if x.batch is None else order.index(x.batch)
    is_same = axes == tuple(range(len(axes)))
    return Traced(x.value if is_same else call.g.permute(x.value, axes=axes), batch)


@converts("nn.ZeroPad2d", "nn.ConstantPad2d", "pad")
def pad(call: Call) -> Traced:
    """Add a zero_pad; PyTorch names the last axis first."""
    x, is_module = call.tensor(), call.module is not None
    given = call.module.padding if is_module else call.arg(1, "pad")
    fill = getattr(call.module, "value", 0) if is_module else call.arg(3, "value", None)
    mode = "constant" if is_module else call.arg(2, "mode", "constant")
    if mode != "constant" or fill or min(given) < 0:
        raise Unsupported("can only add zeros")
    before, behind = [0] * len(x.shape), [0] * len(x.shape)
    for i in range(0, len(given), 2):
        axis = x.axis(-1 - i // 2)
        before[axis], behind[axis] = given[i : i + 2]
    value = call.g.zero_pad(x.value, before=tuple(before), behind=tuple(behind))
    return Traced(value, x.batch)


@converts("nn.Upsample", "nn.UpsamplingNearest2d", "interpolate")
def upsample(call: Call) -> Traced:
    """Add an expand: every pixel becomes a block of equal ones."""
    x = call.image()
    mode = call.module.mode if call.module is not None else call.arg(3, "mode", "nearest")
    (c, h, w), (_, _, height, width) = x.shape, call.shape
    if mode not in ("nearest", "nearest-exact") or height % h or width % w:
        raise Unsupported(
            f"mode={mode!r} from {h}×{w} to {height}×{width} cannot be converted, "
            "'nearest' by a whole factor can"
        )
    blocks = call.g.expand(
        call.reshaped(x.value, (c, h, 1, w, 1)), size=(c, h, height // h, w, width // w)
    )
    return Traced(call.reshaped(blocks, (c, height, width)), 0)


@converts("getitem")
def getitem(call: Call) -> Traced | tuple[Traced | None, ...]:
    """Add a slice for each axis that is cut, and a reshape for those that go or come."""
    x, index = call.args
    if not isinstance(x, Traced):
        return x[index]  # type: ignore[no-any-return]
    index = list(index) if isinstance(index, tuple) else [index]
    named = sum(each is not None and each is not Ellipsis for each in index)
    if Ellipsis in index:
        place = index.index(Ellipsis)
        index[place : place + 1] = [slice(None)] * (x.ndim - named)
    value, dim = x.value, 0
    for each in index:
        if each is None:
            continue
        if not isinstance(each, (int, slice)):
            raise Unsupported(f"can only index with numbers and slices, not {type(each).__name__}")
        if each != slice(None):
            axis = x.axis(dim)
            start, stop, step = _range(each, x.shape[axis])
            value = call.g.slice(value, axis=axis, start=start, stop=stop, step=step)
        dim += 1
    result = Traced(value, x.batch)
    batch = None if x.batch is None else _batch_of_index(index, x.batch)
    return Traced(call.reshaped(result.value, call.without_batch(call.shape, batch)), batch)


def _range(index: int | slice, size: int) -> tuple[int, int, int]:
    if isinstance(index, int):
        return index % size, index % size + 1, 1
    start, stop, step = index.indices(size)
    return start, stop, step


def _batch_of_index(index: list[Any], batch: int) -> int:
    """Return the batch's axis behind indices that remove (numbers) and add (None) axes."""
    dim = place = 0
    for each in index:
        if each is None:
            place += 1
            continue
        if dim == batch:
            return place
        dim += 1
        place += isinstance(each, slice)
    return place + batch - dim


@converts("chunk", "split", "unbind", "narrow", "select")
def split(call: Call) -> Traced | tuple[Traced | None, ...]:
    """Add a slice for each part."""
    x = call.tensor()
    if call.name in ("narrow", "select"):
        return _one_part(call, x)
    place, default = (1, 0) if call.name == "unbind" else (2, 0)
    axis = x.axis(call.arg(place, "dim", default))
    size = x.shape[axis]
    if call.name == "unbind":
        sizes = [1] * size
    elif call.name == "chunk":
        each = -(-size // call.arg(1, "chunks"))
        sizes = [min(each, size - start) for start in range(0, size, each)]
    else:
        given = call.arg(
            1, "split_size_or_sections" if "split_size" not in call.kwargs else "split_size"
        )
        sizes = (
            list(given)
            if not isinstance(given, int)
            else [min(given, size - start) for start in range(0, size, given)]
        )
    parts: list[Traced | None] = []
    start = 0
    for length in sizes:
        value = call.g.slice(x.value, axis=axis, start=start, stop=start + length)
        start += length
        parts.append(
            _without_axis(call, x, value, axis) if call.name == "unbind" else Traced(value, x.batch)
        )
    return tuple(parts)


def _one_part(call: Call, x: Traced) -> Traced:
    axis = x.axis(call.arg(1, "dim"))
    start = call.arg(2, "index" if call.name == "select" else "start") % x.shape[axis]
    length = 1 if call.name == "select" else call.arg(3, "length")
    value = call.g.slice(x.value, axis=axis, start=start, stop=start + length)
    return _without_axis(call, x, value, axis) if call.name == "select" else Traced(value, x.batch)


def _without_axis(call: Call, x: Traced, value: Any, axis: int) -> Traced:
    size = (*value.shape[:axis], *value.shape[axis + 1 :])
    batch = x.batch
    if batch is not None and axis < batch:
        batch -= 1
    return Traced(call.reshaped(value, size), batch)


@converts("cat", "concat", "concatenate", "stack")
def concatenate(call: Call) -> Traced:
    """Add a concat of images' channels, or a join of another axis."""
    tensors = list(call.arg(0, "tensors"))
    if not all(isinstance(each, Traced) for each in tensors):
        raise Unsupported("can only put tensors of the network together")
    if len({each.batch for each in tensors}) != 1:
        raise Unsupported("puts parameters beside examples: expand them to the batch first")
    batch, ndim = tensors[0].batch, len(call.shape)
    dim = call.arg(1, "dim", 0) % ndim
    if call.name == "stack":
        if batch is not None and dim <= batch:
            batch += 1
        axis = dim if batch is None or dim < batch else dim - 1
        shape = tensors[0].shape
        size = (*shape[:axis], 1, *shape[axis:])
        values = [call.reshaped(each.value, size) for each in tensors]
    else:
        axis = tensors[0].axis(dim)
        values = [each.value for each in tensors]
    if axis == 0 and all(len(each.shape) == 3 for each in values):
        return Traced(call.g.concat(*values), batch)
    return Traced(call.g.join(*values, axis=axis), batch)


@converts("mean", "sum")
def mean(call: Call) -> Traced:
    """Add a mean over axes; a sum is a mean times their size."""
    x = call.tensor()
    dims = call.arg(1, "dim", None)
    if dims is None:
        raise Unsupported("works along the batch: name the dim")
    keep = bool(call.arg(2, "keepdim", default=False))
    dims = [dims] if isinstance(dims, int) else list(dims)
    axes = tuple(sorted(x.axis(dim) for dim in dims))
    batch = x.batch
    if batch is not None and not keep:
        batch -= sum(dim % x.ndim < batch for dim in dims)
    if axes == (1, 2) and len(x.shape) == 3:
        value = call.g.global_avg_pool(x.value)
        value = call.reshaped(value, (x.shape[0], 1, 1)) if keep else value
    else:
        value = call.g.mean(x.value, axes=axes, keep=keep)
    if call.name == "sum":
        value = call.g.scale(value, factor=float(math.prod(x.shape[axis] for axis in axes)))
    return Traced(value, batch)
