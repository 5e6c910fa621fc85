"""Checks of the recurrent cell's operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hwnas.errors import ShapeError, UserInputError

if TYPE_CHECKING:
    from torch import Tensor

#: Activations by number.
ACTIVATIONS = ("tanh", "relu", "identity", "sigmoid")


def edges_of(
    edges: Mapping[tuple[int, int], Tensor],
    previous: Sequence[Sequence[int]],
    activations: Sequence[Sequence[int]],
) -> tuple[list[Tensor], list[list[int]]]:
    """Return the matrices in use, and which of them each node of each cell reads.

    Raises:
        UserInputError: A cell is not valid, or reads an edge without a matrix.
    """
    if not activations:
        raise UserInputError("rnn_cell needs at least one cell", "pass a sequence of cells")
    places: dict[tuple[int, int], int] = {}
    edge_index = []
    nodes = len(activations[0])
    for cell, (sources, functions) in enumerate(zip(previous, activations, strict=True)):
        is_valid = (
            len(functions) == nodes == len(sources) + 1
            and all(0 <= activation < len(ACTIVATIONS) for activation in functions)
            and all(0 <= i < j for j, i in enumerate(sources, start=1))
        )
        if not is_valid:
            raise UserInputError(
                f"cell {cell} of rnn_cell is not valid: previous nodes {list(sources)}, "
                f"activations {list(functions)}",
                f"give {nodes - 1} earlier nodes and {nodes} activations of 0 to 3",
            )
        pairs = [(i, j) for j, i in enumerate(sources, start=1)]
        missing = [pair for pair in pairs if pair not in edges]
        if missing:
            raise UserInputError(
                f"cell {cell} of rnn_cell reads edge {missing[0]}, which has no matrix",
                "add it to edges",
            )
        edge_index.append([places.setdefault(pair, len(places)) for pair in pairs])
    return [edges[pair] for pair in places], edge_index


def check_operands(
    x: Tensor,
    h0: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Sequence[Tensor],
    cells: int,
) -> None:
    """Refuse operands that kernels, which get addresses, would read past.

    Raises:
        ShapeError: Shapes do not fit, or dtypes or devices differ.
    """
    for each in (h0, w_input, w_hidden, *edges):
        if each.dtype != x.dtype or each.device != x.device:
            raise ShapeError(
                f"rnn_cell: an operand is {each.dtype} on {each.device}, x is {x.dtype} on "
                f"{x.device}"
            )
    fits = x.dim() == 3 and h0.dim() == 2 and x.shape[1] == h0.shape[0] and not x.shape[1] % cells
    if fits:
        hidden = h0.shape[1]
        square = (2 * hidden, hidden)
        fits = w_input.shape == (2 * hidden, x.shape[2]) and all(
            each.shape == square for each in (w_hidden, *edges)
        )
    if not fits:
        shapes = [tuple(each.shape) for each in (x, h0, w_input, w_hidden, *edges)]
        raise ShapeError(
            f"rnn_cell expects x [T, {cells} * B, E], h0 [{cells} * B, H], w_input [2 H, E], "
            f"w_hidden and edges [2 H, H], got {shapes}"
        )
