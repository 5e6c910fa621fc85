"""Genotypes: cells in the text form that DARTS and the tools that follow it print.

    Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), …], normal_concat=range(2, 6),
             reduce=[…], reduce_concat=range(2, 6))

Each pair is an op and the state that it reads; two pairs make a node. `normal_concat` are the
states that the cell's output concatenates.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hwnas.errors import UserInputError
from hwnas.graph import Answer, Architecture
from hwnas.spaces._cells import cell_answers

Edge: TypeAlias = tuple[str, int]

_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
_HINT = (
    "it looks like Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), …], "
    "normal_concat=range(2, 6), reduce=[…], reduce_concat=range(2, 6))"
)


@dataclass(frozen=True, slots=True)
class Genotype:
    """Both cells as (op, state) pairs, two a node, and the states that make their outputs."""

    normal: tuple[Edge, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Edge, ...]
    reduce_concat: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Genotype:
        """Read a genotype; nothing in the text is executed.

        The pairs of a node may have brackets of their own, and the genotype a name in front
        (``DARTS_V2 = Genotype(…)``).

        Raises:
            UserInputError: The text is no genotype.
        """
        call = _call(text)
        found = {str(each.arg): each.value for each in call.keywords}
        if call.args or sorted(found) != sorted(_FIELDS):
            raise UserInputError(f"a genotype has the fields {', '.join(_FIELDS)}", _HINT)
        values = {
            name: (_states if name.endswith("concat") else _edges)(name, value)
            for name, value in found.items()
        }
        made = cls(**values)  # type: ignore[arg-type]
        for name in ("normal", "reduce"):
            nodes = len(getattr(made, name)) // 2
            if max(getattr(made, f"{name}_concat")) >= nodes + 2:
                raise UserInputError(f"genotype: {name}_concat names a state above {nodes + 1}")
        if len(made.normal) != len(made.reduce):
            raise UserInputError("genotype: both cells must have as many nodes")
        return made

    @classmethod
    def of(
        cls,
        architecture: Architecture,
        normal_concat: Sequence[int] | None = None,
        reduce_concat: Sequence[int] | None = None,
    ) -> Genotype:
        """Return the genotype of an architecture of `darts`; the outputs default to all nodes.

        Raises:
            UserInputError: It is of another space.
        """
        normal, reduce = _pairs(architecture, "normal"), _pairs(architecture, "reduction")
        if not normal or 4 * len(normal) != len(architecture) or len(normal) != len(reduce):
            raise UserInputError(
                f"architecture {architecture.id} has no normal and reduction cell as DARTS' have",
                "genotypes are of architectures of the space darts",
            )
        everything = tuple(range(2, len(normal) // 2 + 2))
        return cls(
            normal,
            everything if normal_concat is None else tuple(normal_concat),
            reduce,
            everything if reduce_concat is None else tuple(reduce_concat),
        )

    @property
    def architecture(self) -> Architecture:
        """The answers that give these cells."""
        answers: dict[str, Answer] = {}
        for name, edges in (("normal", self.normal), ("reduction", self.reduce)):
            pairs = list(zip(edges[::2], edges[1::2], strict=True))
            answers |= cell_answers(name, pairs)
        return Architecture(answers)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the space `darts` that these cells need."""
        from hwnas.spaces.darts import OPS

        nodes = len(self.normal) // 2
        used = {op for op, _ in (*self.normal, *self.reduce)}
        found: dict[str, Any] = {"nodes": nodes}
        if not used <= set(OPS):
            found["ops"] = [*OPS, *sorted(used - set(OPS))]
        for name in ("normal_concat", "reduce_concat"):
            if getattr(self, name) != tuple(range(2, nodes + 2)):
                found[name] = list(getattr(self, name))
        return found

    def __str__(self) -> str:
        """Return the text, as DARTS prints it."""
        parts = []
        for name in _FIELDS:
            value = getattr(self, name)
            shown = _concat_text(value) if name.endswith("concat") else repr(list(value))
            parts.append(f"{name}={shown}")
        return f"Genotype({', '.join(parts)})"


def from_genotype(text: str) -> Architecture:
    """Return the architecture of `darts` that a genotype describes.

    What the genotype says of the cells' outputs is a setting of the space: `genotype_settings`.

    Raises:
        UserInputError: The text is no genotype.
    """
    return Genotype.parse(text).architecture


def genotype_settings(text: str) -> dict[str, Any]:
    """Return the settings of `darts` under which a genotype is an architecture of it.

    Raises:
        UserInputError: The text is no genotype.
    """
    return Genotype.parse(text).settings


def to_genotype(
    architecture: Architecture,
    normal_concat: Sequence[int] | None = None,
    reduce_concat: Sequence[int] | None = None,
) -> str:
    """Return an architecture of `darts` as the text that DARTS' tools print and read.

    Args:
        architecture: The architecture.
        normal_concat: States that the normal cell concatenates; None: all nodes.
        reduce_concat: Likewise for the reduction cell.

    Raises:
        UserInputError: It is of another space.
    """
    return str(Genotype.of(architecture, normal_concat, reduce_concat))


def _call(text: str) -> ast.Call:
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise UserInputError(f"the genotype cannot be read: {error}", _HINT) from None
    call = body[0].value if len(body) == 1 and isinstance(body[0], ast.Expr | ast.Assign) else None
    if not isinstance(call, ast.Call):
        raise UserInputError("the genotype is not one call of Genotype(…)", _HINT)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name != "Genotype":
        raise UserInputError(f"the genotype is a call of {name or 'something else'}", _HINT)
    return call


def _literal(name: str, value: ast.expr) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise UserInputError(f"genotype: {name} is not written out", _HINT) from None


def _edges(name: str, value: ast.expr) -> tuple[Edge, ...]:
    found = _literal(name, value)
    if not isinstance(found, list | tuple) or not found:
        raise UserInputError(f"genotype: {name} is not a list of (op, state) pairs", _HINT)
    flat = list(found)
    if all(isinstance(each, list) for each in found):  # the pairs of each node in brackets
        if any(len(each) != 2 for each in found):
            raise UserInputError(f"genotype: {name} has a node without two inputs", _HINT)
        flat = [pair for each in found for pair in each]
    if len(flat) % 2:
        raise UserInputError(f"genotype: {name} has {len(flat)} pairs, not two a node", _HINT)
    edges = []
    for place, pair in enumerate(flat):
        if not (
            isinstance(pair, tuple)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and type(pair[1]) is int
            and 0 <= pair[1] < place // 2 + 2
        ):
            raise UserInputError(
                f"genotype: {name}: {pair!r} is not (op, state) with an earlier state", _HINT
            )
        edges.append((pair[0], pair[1]))
    return tuple(edges)


def _states(name: str, value: ast.expr) -> tuple[int, ...]:
    if isinstance(value, ast.Call):
        bounds = [_literal(name, each) for each in value.args]
        is_range = getattr(value.func, "id", "") == "range" and not value.keywords
        if not is_range or len(bounds) != 2 or any(type(each) is not int for each in bounds):
            raise UserInputError(f"genotype: {name} is neither a range nor a list", _HINT)
        if bounds[1] - bounds[0] > 100:
            raise UserInputError(f"genotype: {name} is too long", _HINT)
        found: Any = list(range(*bounds))
    else:
        found = _literal(name, value)
    is_list = isinstance(found, list | tuple) and all(type(each) is int for each in found)
    if not is_list or not found or list(found) != sorted(set(found)) or found[0] < 0:
        raise UserInputError(f"genotype: {name} is not an ascending list of states", _HINT)
    return tuple(found)


def _pairs(architecture: Architecture, cell: str) -> tuple[Edge, ...]:
    edges: list[Edge] = []
    node = f"{cell}/node0"
    while f"{node}/input1" in architecture:
        for number in (1, 2):
            op, state = (
                architecture.get(f"{node}/op{number}"),
                architecture.get(f"{node}/input{number}"),
            )
            if not isinstance(op, str) or not isinstance(state, int):
                return ()
            edges.append((op, state))
        node = f"{cell}/node{len(edges) // 2}"
    return tuple(edges)


def _concat_text(states: Sequence[int]) -> str:
    is_range = list(states) == list(range(states[0], states[-1] + 1))
    return f"range({states[0]}, {states[-1] + 1})" if is_range else repr(list(states))
