"""The recurrent cell of the CUDA backend: products by cuBLAS, a node's other half by a kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hwnas.kernels._cuda_stages import dtype_name, stream_of

if TYPE_CHECKING:
    from torch import Tensor


class Cells:
    """M sampled cells, one after the other in the rows of every tensor.

    Slot 0 of a step's states is what the step before carried on, slot j + 1 is node j.

    Args:
        previous: See `Backend.rnn_cell`.
        activations: Likewise.
        edge_index: Likewise.
        carry_last: Likewise.
    """

    def __init__(
        self,
        previous: Sequence[Sequence[int]],
        activations: Sequence[Sequence[int]],
        edge_index: Sequence[Sequence[int]],
        carry_last: bool,
    ) -> None:
        self.count = len(activations)
        self.nodes = len(activations[0])
        self.activations = activations
        self.edge_index = edge_index
        self.carry_last = carry_last
        #: For each node, the slot that each cell's node reads.
        self.sources = [[0] * self.count] + [
            [each[j] + 1 for each in previous] for j in range(self.nodes - 1)
        ]
        #: For each cell, the slots of the nodes that no other reads.
        self.leaves = [
            [j + 1 for j in range(self.nodes) if j not in set(each)] for each in previous
        ]

    def groups(self, node: int) -> Iterator[tuple[int, list[int]]]:
        """Yield each matrix that `node` is fed through, with the cells that use it."""
        users: dict[int, list[int]] = {}
        for cell, edges in enumerate(self.edge_index):
            users.setdefault(edges[node - 1], []).append(cell)
        yield from users.items()


class _Call:
    """Launches of the node kernels for tensors of one size."""

    def __init__(self, module: Any, cells: Cells, like: Tensor, rows: int, hidden: int) -> None:
        self.module = module
        self.cells = cells
        self.rows = rows
        self.hidden = hidden
        self.each = rows // cells.count
        self.dtype = dtype_name(like)
        self.stream = stream_of(like)
        self.width = like.element_size() * hidden

    def of(self, cell: int) -> slice:
        """The rows of a cell."""
        return slice(cell * self.each, (cell + 1) * self.each)

    def gathered(self, slots: Tensor, places: Sequence[int], chosen: Sequence[int]) -> Tensor:
        """The chosen cells' rows of `slots` [slots, R, width], each from its own slot."""
        parts = [slots[places[m], self.of(m)] for m in chosen]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def chunks(self, node: int) -> Iterator[tuple[tuple[Any, ...], int]]:
        """Yield the cells of each launch with the number of the first row."""
        if not self.rows:
            return
        most = self.module.MOST_CELLS
        for first in range(0, self.cells.count, most):
            chosen = slice(first, first + most)
            kinds = [each[node] for each in self.cells.activations[chosen]]
            sources = self.cells.sources[node][chosen]
            yield (self.each, self.hidden, self.rows, sources, kinds), first * self.each

    def node(self, node: int, pre: Tensor, states: Tensor, gate: Tensor, value: Tensor) -> None:
        """Fill slot `node` + 1 of states [K + 1, R, H], gate and value [R, H] from pre [R, 2H]."""
        for packed, row in self.chunks(node):
            off = row * self.width
            self.module.rnn_node(
                self.dtype,
                packed,
                pre.data_ptr() + 2 * off,
                states.data_ptr() + off,
                gate.data_ptr() + off,
                value.data_ptr() + off,
                states[node + 1].data_ptr() + off,
                self.stream,
            )

    def node_backward(
        self,
        node: int,
        d_states: Tensor,
        gate: Tensor,
        value: Tensor,
        states: Tensor,
        d_pre: Tensor,
    ) -> None:
        """Fill d_pre [R, 2H] and add to the slots of d_states [K + 1, R, H] that the node read."""
        for packed, row in self.chunks(node):
            off = row * self.width
            self.module.rnn_node_backward(
                self.dtype,
                packed,
                d_states[node + 1].data_ptr() + off,
                gate.data_ptr() + off,
                value.data_ptr() + off,
                states.data_ptr() + off,
                d_states.data_ptr() + off,
                d_pre.data_ptr() + 2 * off,
                self.stream,
            )


@torch.no_grad()
def forward(
    module: Any,
    cells: Cells,
    x: Tensor,
    h0: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Sequence[Tensor],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Run `Backend.rnn_cell`; it saves states, gates and node values of all steps."""
    steps, rows, _ = x.shape
    hidden = h0.shape[1]
    call = _Call(module, cells, x, rows, hidden)
    states = x.new_empty((steps, cells.nodes + 1, rows, hidden))
    gates = x.new_empty((steps, cells.nodes, rows, hidden))
    values = torch.empty_like(gates)
    output = x.new_empty((steps, rows, hidden))
    from_input = torch.matmul(x, w_input.t())
    carried = h0
    for t in range(steps):
        own = states[t]
        own[0] = carried
        for node in range(cells.nodes):
            if node == 0:
                pre = torch.addmm(from_input[t], carried, w_hidden.t())
            else:
                pre = _fed(call, node, own, edges)
            call.node(node, pre, own, gates[t, node], values[t, node])
        for cell, leaves in enumerate(cells.leaves):
            output[t, call.of(cell)] = own[leaves, call.of(cell)].mean(0)
        carried = own[cells.nodes] if cells.carry_last else output[t]
    return output, carried.clone(), [states, gates, values]


def _fed(call: _Call, node: int, states: Tensor, edges: Sequence[Tensor]) -> Tensor:
    """Products of all cells' inputs of a node: rows that share a matrix are stacked."""
    groups = list(call.cells.groups(node))
    sources = call.cells.sources[node]
    products = [
        torch.mm(call.gathered(states, sources, chosen), edges[edge].t()) for edge, chosen in groups
    ]
    if len(products) == 1:
        return products[0]
    pre = states.new_empty((call.rows, 2 * call.hidden))
    for product, (_, chosen) in zip(products, groups, strict=True):
        for place, cell in enumerate(chosen):
            pre[call.of(cell)] = product[call.of(place)]
    return pre


@torch.no_grad()
def backward(
    module: Any,
    cells: Cells,
    d_output: Tensor,
    d_state: Tensor,
    saved: Sequence[Tensor],
    x: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """Run `Backend.rnn_cell_backward`; weight gradients are one product over all steps."""
    states, gates, values = saved
    steps, slots, rows, hidden = states.shape
    call = _Call(module, cells, x, rows, hidden)
    d_pre = x.new_empty((steps, cells.nodes, rows, 2 * hidden))
    carried = d_state
    for t in reversed(range(steps)):
        d_states = x.new_zeros((slots, rows, hidden))
        of_leaves = d_output[t] if cells.carry_last else d_output[t] + carried
        for cell, leaves in enumerate(cells.leaves):
            d_states[leaves, call.of(cell)] = of_leaves[call.of(cell)] / len(leaves)
        if cells.carry_last:
            d_states[cells.nodes] += carried
        for node in reversed(range(cells.nodes)):
            own = d_pre[t, node]
            call.node_backward(node, d_states, gates[t, node], values[t, node], states[t], own)
            if node == 0:
                d_states[0].addmm_(own, w_hidden)
            else:
                _feed_back(call, node, d_states, own, edges)
        carried = d_states[0]
    first = d_pre[:, 0].reshape(steps * rows, 2 * hidden)
    dx = (first @ w_input).view_as(x)
    d_input = first.t() @ x.reshape(steps * rows, -1)
    d_hidden = first.t() @ states[:, 0].reshape(steps * rows, hidden)
    return dx, carried, d_input, d_hidden, _edge_gradients(call, states, d_pre, edges)


def _feed_back(
    call: _Call, node: int, d_states: Tensor, d_pre: Tensor, edges: Sequence[Tensor]
) -> None:
    sources = call.cells.sources[node]
    for edge, chosen in call.cells.groups(node):
        rows = call.gathered(d_pre.unsqueeze(0), [0] * call.cells.count, chosen)
        product = rows @ edges[edge]
        for place, cell in enumerate(chosen):
            d_states[sources[cell], call.of(cell)] += product[call.of(place)]


def _edge_gradients(
    call: _Call, states: Tensor, d_pre: Tensor, edges: Sequence[Tensor]
) -> list[Tensor]:
    found: list[Tensor | None] = [None] * len(edges)
    for node in range(1, call.cells.nodes):
        sources = call.cells.sources[node]
        for edge, chosen in call.cells.groups(node):
            g = torch.cat([d_pre[:, node, call.of(m)].flatten(0, 1) for m in chosen])
            h = torch.cat([states[:, sources[m], call.of(m)].flatten(0, 1) for m in chosen])
            product = g.t() @ h
            before = found[edge]
            found[edge] = product if before is None else before + product
    return [
        torch.zeros_like(edge) if each is None else each
        for each, edge in zip(found, edges, strict=True)
    ]
