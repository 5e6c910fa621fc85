"""Runs a recurrent cell: by the fused kernel where the cell's form allows it, else step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from hwnas.kernels.rnn_cell import rnn_cell

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.graph.ops.rnn_cell import RnnCell

Edges = Mapping[tuple[int, int], "Tensor"]

_FUNCTIONS = (torch.tanh, torch.relu, lambda value: value, torch.sigmoid)


def run_cell(
    cell: RnnCell,
    x: Tensor,
    state: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Edges,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run all steps.

    Args:
        cell: The op.
        x: `[T, N, E]`.
        state: `[N, H]` before the first step.
        w_input: `[2 H, E]`.
        w_hidden: `[2 H, H]`.
        edges: `[2 H, H]` by (source, node).
        mask: `[N, H]`, multiplied with every state that a matrix reads; None for none.

    Returns:
        `[T, N, H]` outputs and `[N, H]` the state after the last step.
    """
    own = [node for node in range(len(cell.activations)) if node not in cell.previous]
    if mask is not None or cell.averaged() != own:
        return _plain(cell, x, state, w_input, w_hidden, edges, mask)

    def fused(part: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        cells = [(cell.previous, cell.activations)]
        return rnn_cell(part, before, w_input, w_hidden, edges, cells, carry_last=cell.carry_last)

    if cell.clip is None:
        return fused(x, state)
    if not cell.carry_last:
        output, after = fused(x, state)
        if bool(output.detach().norm(dim=-1).amax() <= cell.clip):
            return output, after  # every state was an output: none had to be clipped
    outputs = []
    for part in x.split(1):
        output, state = fused(part, state)
        outputs.append(output)
        state = clipped(state, cell.clip)
    return torch.cat(outputs), state


def clipped(state: Tensor, limit: float) -> Tensor:
    """Scale rows of `[N, H]` whose norm is over the limit down to it."""
    norm = state.detach().norm(dim=1, keepdim=True)
    factor: Tensor = limit / norm.clamp(min=limit)
    return state * factor


def _plain(
    cell: RnnCell,
    x: Tensor,
    state: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Edges,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    def read(value: Tensor) -> Tensor:
        return value if mask is None else value * mask

    averaged = cell.averaged()
    outputs = []
    for from_input in torch.matmul(x, w_input.t()).unbind():
        pre = torch.addmm(from_input, read(state), w_hidden.t())
        nodes = [_highway(pre, state, cell.activations[0])]
        for (source, node), weight in edges.items():
            pre = read(nodes[source]) @ weight.t()
            nodes.append(_highway(pre, nodes[source], cell.activations[node]))
        outputs.append(torch.stack([nodes[each] for each in averaged]).mean(0))
        state = nodes[-1] if cell.carry_last else outputs[-1]
        if cell.clip is not None:
            state = clipped(state, cell.clip)
    return torch.stack(outputs), state


def _highway(pre: Tensor, before: Tensor, activation: int) -> Tensor:
    gate, value = pre.chunk(2, dim=1)
    return torch.lerp(before, _FUNCTIONS[activation](value), gate.sigmoid())
