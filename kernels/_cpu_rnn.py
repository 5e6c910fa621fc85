"""`rnn_cell` and `rnn_cell_backward` of the CPU backend, on `hwnas._core`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from hwnas import _core
from hwnas.kernels import _arena

if TYPE_CHECKING:
    from torch import Tensor


def saved_shape(steps: int, rows: int, hidden: int, nodes: int) -> tuple[int, int, int]:
    """Return the shape of the one tensor that the backward pass needs."""
    return steps, 3 * nodes + 1, _core.rnn_plane(rows, hidden)


def rnn_cell(
    x: Tensor,
    h0: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Sequence[Tensor],
    previous: Sequence[Sequence[int]],
    activations: Sequence[Sequence[int]],
    edge_index: Sequence[Sequence[int]],
    carry_last: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """See `Backend.rnn_cell`."""
    x, h0, w_input, w_hidden, *edges = (
        each.contiguous() for each in (x, h0, w_input, w_hidden, *edges)
    )
    steps, rows, width = x.shape
    hidden = h0.shape[1]
    output = _arena.flat(steps, rows, hidden)
    state = _arena.flat(rows, hidden)
    saved = _arena.flat(*saved_shape(steps, rows, hidden, len(activations[0])))
    _core.rnn_cell(
        tuple(each.data_ptr() for each in (x, h0, w_input, w_hidden)),
        [each.data_ptr() for each in edges],
        tuple(each.data_ptr() for each in (output, state, saved)),
        (steps, rows // len(activations), width, hidden),
        previous,
        activations,
        edge_index,
        carry_last,
        torch.get_num_threads(),
    )
    return output, state, [saved]


def rnn_cell_backward(
    d_output: Tensor,
    d_state: Tensor,
    saved: Sequence[Tensor],
    x: Tensor,
    h0: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Sequence[Tensor],
    previous: Sequence[Sequence[int]],
    activations: Sequence[Sequence[int]],
    edge_index: Sequence[Sequence[int]],
    carry_last: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """See `Backend.rnn_cell_backward`."""
    d_output, d_state, x, w_input, w_hidden, *edges = (
        each.contiguous() for each in (d_output, d_state, x, w_input, w_hidden, *edges)
    )
    steps, rows, width = x.shape
    hidden = h0.shape[1]
    results = (
        _arena.flat(steps, rows, width),
        _arena.flat(rows, hidden),
        _arena.flat(2 * hidden, width),
        _arena.flat(2 * hidden, hidden),
    )
    d_edges = [_arena.flat(2 * hidden, hidden) for _ in edges]
    _core.rnn_cell_backward(
        tuple(each.data_ptr() for each in (d_output, d_state, saved[0], x, w_input, w_hidden)),
        [each.data_ptr() for each in edges],
        tuple(each.data_ptr() for each in results),
        [each.data_ptr() for each in d_edges],
        (steps, rows // len(activations), width, hidden),
        previous,
        activations,
        edge_index,
        carry_last,
        torch.get_num_threads(),
    )
    return (*results, d_edges)
