"""Arcs of ENAS macro: the numbers that the authors' controller prints and their scripts have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hwnas.errors import UserInputError
from hwnas.graph import Answer, Architecture, Pick

#: In the authors' order: their `num_branches` takes the first of these.
OPS = (
    "conv_3x3", "sep_conv_3x3", "conv_5x5", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3",
)  # fmt: skip

ARC_FORM = (
    "for each layer k its op, then k bits of skips, 0 being the stem: 0 3 0 0 1 0 …; "
    f"ops: {', '.join(f'{i} {op}' for i, op in enumerate(OPS))}; "
    "by channels, the first and the number of them for each op stand for the op"
)


def read_arc(
    numbers: Sequence[int],
    layers: int,
    ranges: Sequence[str] | None = None,
    ops: Sequence[str] = OPS,
) -> Architecture:
    """Return the picks of an arc.

    Args:
        numbers: The arc, one layer after the other.
        layers: Number of layers.
        ranges: Ops of which each has a range of channels; None: a layer has one op.
        ops: What the numbers of ops stand for.

    Raises:
        UserInputError: The numbers are no arc of so many layers.
    """
    each = 1 if ranges is None else 2 * len(ranges)
    expected = layers * each + layers * (layers - 1) // 2
    if len(numbers) != expected:
        raise UserInputError(
            f"architecture: an arc of {layers} layers has {expected} numbers, not {len(numbers)}"
            f"{_other_depth(len(numbers), each)}",
            ARC_FORM,
        )
    answers: dict[str, Answer] = {}
    rest = iter(numbers)
    for layer in range(layers):
        if ranges is None:
            answers[f"layer{layer}/op"] = _op(next(rest), ops)
        else:
            for op in ranges:
                first, count = next(rest), next(rest)
                answers[f"layer{layer}/first_{op}"] = first
                answers[f"layer{layer}/count_{op}_from{first}"] = count
        answers[f"layer{layer}/skips"] = _skips(rest, layer)
    return Architecture(answers)


def write_arc(architecture: Architecture, layers: int, ranges: Sequence[str] | None) -> str:
    """Return the arc of an architecture; the arguments are those of `read_arc`.

    Raises:
        UserInputError: It is of another space.
    """
    pick = Pick(architecture.replay())
    numbers: list[int] = []
    for layer in range(layers):
        if ranges is None:
            numbers.append(OPS.index(pick.one_of(f"layer{layer}/op", OPS)))
        else:
            for op in ranges:
                first = architecture[f"layer{layer}/first_{op}"]
                count = architecture[f"layer{layer}/count_{op}_from{first}"]
                numbers += [int(first), int(count)]  # type: ignore[arg-type]
        skips = pick.predecessors(f"layer{layer}/skips", layer)
        numbers += [int(i in skips) for i in range(layer)]
    return " ".join(map(str, numbers))


def _op(number: int, ops: Sequence[str]) -> str:
    if number >= len(ops):
        raise UserInputError(f"architecture: an arc has no op {number}", ARC_FORM)
    return ops[number]


def _skips(rest: Iterator[int], layer: int) -> tuple[int, ...]:
    bits = [next(rest) for _ in range(layer)]
    if set(bits) - {0, 1}:
        raise UserInputError(f"architecture: skips of layer {layer} are not 0 or 1", ARC_FORM)
    return tuple(i for i, bit in enumerate(bits) if bit)


def _other_depth(count: int, each: int) -> str:
    """Say how many layers the arc has, if it is one."""
    layers = next((n for n in range(count + 1) if n * each + n * (n - 1) // 2 >= count), 0)
    fits = layers * each + layers * (layers - 1) // 2 == count
    return f", which {layers} layers have: space.layers" if fits else ""
