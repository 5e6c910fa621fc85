"""Convolutions and pooling."""

from __future__ import annotations

from typing import Any

from hwnas.graph.builder import Value
from hwnas.graph.op import Size
from hwnas.spaces.torch_modules.converting import Call, Traced, Unsupported, converts


def _pair(value: Any, behind: int = 1) -> tuple[int, int]:
    """Return height and width; of a sequence's window, the second is `behind`."""
    if isinstance(value, int):
        return value, value
    first, second = (*value, behind)[:2]
    return int(first), int(second)


def _size(pair: tuple[int, int]) -> Size:
    return pair[0] if pair[0] == pair[1] else pair


@converts("nn.Conv2d", "nn.Conv1d")
def conv(call: Call) -> Traced:
    """Add a conv, behind explicit zeros where the padding is neither ``same`` nor ``valid``.

    A sequence [N, C, T] is an image of T × 1.
    """
    m, x = call.module, call.tensor()
    if x.batch != 0 or len(x.shape) != len(m.kernel_size) + 1:
        raise Unsupported("takes images [N, C, H, W], sequences [N, C, T]")
    call.only(padding_mode="zeros")
    kernel, dilation = _pair(m.kernel_size), _pair(m.dilation, m.dilation[0])
    if dilation[0] != dilation[1]:
        raise Unsupported(f"dilation={dilation} cannot be converted, one number for both can")
    value, padding = call.reshaped(x.value, (*x.shape, 1)[:3]), "valid"
    span = [dilation[0] * (each - 1) for each in kernel]
    before, behind = _padding(m.padding, span)
    if before == behind == [each // 2 for each in span]:
        padding = "same"
    elif any((*before, *behind)):
        value = call.g.zero_pad(value, before=(0, *before), behind=(0, *behind))
    names = {"weight": "weight"} | ({"bias": "bias"} if m.bias is not None else {})
    value = call.g.conv(
        value,
        channels=m.out_channels,
        kernel=_size(kernel),
        stride=_size(_pair(m.stride)),
        groups=m.groups,
        dilation=dilation[0],
        bias=m.bias is not None,
        padding=padding,
        weights=call.weights(tuple(m.weight.shape), names),
    )
    return Traced(call.reshaped(value, call.without_batch(call.shape, 0)), 0)


def _padding(padding: Any, span: list[int]) -> tuple[list[int], list[int]]:
    if padding == "valid":
        return [0, 0], [0, 0]
    if padding == "same":  # an odd zero goes behind, as PyTorch does it
        return [each // 2 for each in span], [each - each // 2 for each in span]
    both = list(_pair(padding, behind=0))
    return both, both


@converts("nn.MaxPool2d", "max_pool2d", "nn.AvgPool2d", "avg_pool2d")
def pool2d(call: Call) -> Traced:
    """Add a max_pool or avg_pool of a square window."""
    x = call.image()
    is_max = "ax" in call.name
    options = _options(call, is_max=is_max)
    kernel, padding = _pair(options["kernel_size"]), _pair(options["padding"])
    stride = _pair(options["stride"] or options["kernel_size"])
    for name, pair in {"kernel_size": kernel, "stride": stride, "padding": padding}.items():
        if pair[0] != pair[1]:
            raise Unsupported(f"{name}={pair} cannot be converted, one number for both can")
    for name, expected in {"dilation": 1, "divisor_override": None}.items():
        if options.get(name, expected) != expected:
            raise Unsupported(
                f"{name}={options[name]!r} cannot be converted, {name}={expected!r} can"
            )
    size, pad, value, kind = kernel[0], padding[0], x.value, "valid"
    if pad and pad == (size - 1) // 2 and (is_max or not options["count_include_pad"]):
        kind = "same"
    elif pad and (is_max or not options["count_include_pad"]):
        raise Unsupported(f"padding={pad} of a {size}×{size} window: only {(size - 1) // 2} or 0")
    elif pad:
        value = call.g.zero_pad(value, before=(0, pad, pad), behind=(0, pad, pad))
    add = call.g.max_pool if is_max else call.g.avg_pool
    value = add(value, kernel=size, stride=stride[0], padding=kind)
    if value.shape != call.shape[1:]:
        raise Unsupported("ceil_mode=True makes a window more here: only where it makes none")
    return Traced(value, 0)


def _options(call: Call, *, is_max: bool) -> dict[str, Any]:
    names = ["kernel_size", "stride", "padding"]
    names += ["dilation", "ceil_mode"] if is_max else ["ceil_mode", "count_include_pad"]
    names += [] if is_max else ["divisor_override"]
    if call.module is not None:
        return {name: getattr(call.module, name) for name in names}
    defaults = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
    defaults |= {"count_include_pad": True, "divisor_override": None}
    return {
        name: call.arg(index, name, *([defaults[name]] if name in defaults else []))
        for index, name in enumerate(names, start=1)
    }


_ADAPTIVE = ("AdaptiveAvgPool2d", "AdaptiveMaxPool2d")


@converts(*(f"nn.{name}" for name in _ADAPTIVE), "adaptive_avg_pool2d", "adaptive_max_pool2d")
def adaptive_pool2d(call: Call) -> Traced:
    """Add a global_avg_pool, or a pooling where the windows are equal squares."""
    x = call.image()
    wanted = call.module.output_size if call.module is not None else call.arg(1, "output_size")
    height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
    _, *size = x.shape
    height, width = height or size[0], width or size[1]
    is_max = "ax" in call.name
    if (height, width) == (1, 1) and not is_max:
        return Traced(_as_image(call, call.g.global_avg_pool(x.value)), 0)
    window = size[0] // height
    if call.shape[2:] != (height, width) or size != [height * window, width * window]:
        raise Unsupported(f"{tuple(size)} to {(height, width)}: the windows are no equal squares")
    add = call.g.max_pool if is_max else call.g.avg_pool
    return Traced(add(x.value, kernel=window, stride=window, padding="valid"), 0)


def _as_image(call: Call, value: Value) -> Value:
    return call.reshaped(value, (value.shape[0], 1, 1))
