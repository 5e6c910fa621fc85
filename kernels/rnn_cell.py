"""`hwnas::rnn_cell`: sampled ENAS recurrent cells over all time steps in one call.

The architecture is data (lists of integers), so a newly sampled cell costs nothing to set up. The
equations are those of the shared recurrent cell of Pham et al. 2018 ("Efficient Neural Architecture
Search via Parameter Sharing", section 2.1) as carpedm20/ENAS-pytorch writes them
(``models/shared_rnn.py``). For one cell with nodes 0 to K - 1, input x and carried state h:

- node 0: ``c = sigmoid(U_c x + W_c h)``, ``n = f_0(U_n x + W_n h)``, ``h_0 = c n + (1 - c) h``;
- node j, which reads node i: ``c = sigmoid(W_ij_c h_i)``, ``n = f_j(W_ij_n h_i)``,
  ``h_j = c n + (1 - c) h_i``;
- the output is the average of the leaves, the nodes that no other one reads;
- the next step's h is the output, or h of node K - 1 (`carry_last`).

U, W and each W_ij have 2 H rows, those of the gate (c) first. Matrices belong to edges and are
shared by the activations.

In the shapes, `T` is the number of steps, `M` of cells, `B` of rows of each cell, `E` the size of
the input, `H` of the state, `K` the number of nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from hwnas.errors import UserInputError
from hwnas.kernels._rnn_operands import check_operands, edges_of

if TYPE_CHECKING:
    from torch import Tensor

#: One sampled cell: the K - 1 nodes that nodes 1 to K - 1 read, and K activations.
Cell = tuple[Sequence[int], Sequence[int]]

_LIBRARY = torch.library.Library("hwnas", "FRAGMENT")
_ARCHITECTURE = "int[] previous, int[] activations, int[] edge_index, int cells, bool carry_last"
_LIBRARY.define(
    "rnn_cell(Tensor x, Tensor h0, Tensor w_input, Tensor w_hidden, Tensor[] edges, "
    f"{_ARCHITECTURE}, str backend) -> (Tensor, Tensor, Tensor[])"
)
_LIBRARY.define(
    "rnn_cell_backward(Tensor d_output, Tensor d_state, Tensor[] saved, Tensor x, Tensor h0, "
    f"Tensor w_input, Tensor w_hidden, Tensor[] edges, {_ARCHITECTURE}, str backend) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor[])"
)


def rnn_cell(
    x: Tensor,
    h0: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Mapping[tuple[int, int], Tensor],
    cells: Sequence[Cell],
    *,
    carry_last: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Run M sampled cells over T steps; equations in the module's docstring.

    Rows of cells that read the same edge are multiplied at once.

    Args:
        x: `[T, M * B, E]`; the rows of cell m are m * B to (m + 1) * B.
        h0: `[M * B, H]` state before the first step.
        w_input: `[2 * H, E]`.
        w_hidden: `[2 * H, H]`.
        edges: `[2 * H, H]` for each edge (i, j) that a cell may use; others may be there too.
        cells: M pairs of K - 1 previous nodes and K activations (0 tanh, 1 ReLU, 2 identity,
            3 sigmoid), all of the same K.
        carry_last: The next step sees the last node's state instead of the leaves' average.
        backend: ``"reference"`` or the name of a kernel backend; by default ``HWNAS_KERNELS``, and
            without that the first backend that takes such tensors, else the reference.

    Returns:
        `[T, M * B, H]` averages of the leaves and `[M * B, H]` the state after the last step.

    Raises:
        ShapeError: Shapes do not fit each other or the cells.
        UserInputError: A cell is not valid, or lacks an edge.
        KernelUnavailable: The backend asked for cannot run here.
    """
    previous, activations = [list(p) for p, _ in cells], [list(a) for _, a in cells]
    matrices, edge_index = edges_of(edges, previous, activations)
    check_operands(x, h0, w_input, w_hidden, matrices, len(cells))
    chosen = _backend(x, backend)
    if chosen is None:
        return reference(
            x, h0, w_input, w_hidden, matrices, previous, activations, edge_index, carry_last
        )
    output, state, _ = torch.ops.hwnas.rnn_cell(
        x,
        h0,
        w_input,
        w_hidden,
        matrices,
        _flat(previous),
        _flat(activations),
        _flat(edge_index),
        len(cells),
        carry_last,
        chosen,
    )
    return output, state


def reference(
    x: Tensor,
    h0: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Sequence[Tensor],
    previous: Sequence[Sequence[int]],
    activations: Sequence[Sequence[int]],
    edge_index: Sequence[Sequence[int]],
    carry_last: bool,
) -> tuple[Tensor, Tensor]:
    """Run the cells in plain PyTorch, one after the other; arguments as of `Backend.rnn_cell`.

    Returns:
        `[T, M * B, H]` averages of the leaves and `[M * B, H]` the state after the last step.
    """
    functions = (torch.tanh, torch.relu, lambda value: value, torch.sigmoid)
    count = len(activations)
    projected = torch.matmul(x, w_input.t()).chunk(count, dim=1)
    outputs, states = [], []
    for m, state in enumerate(h0.chunk(count)):
        leaves = [node for node in range(len(activations[m])) if node not in previous[m]]
        steps = []
        for from_input in projected[m].unbind():
            nodes: list[Tensor] = []
            for node, activation in enumerate(activations[m]):
                if node == 0:
                    before, pre = state, torch.addmm(from_input, state, w_hidden.t())
                else:
                    before = nodes[previous[m][node - 1]]
                    pre = before @ edges[edge_index[m][node - 1]].t()
                gate, value = pre.chunk(2, dim=1)
                gate = torch.sigmoid(gate)
                nodes.append(gate * functions[activation](value) + (1 - gate) * before)
            total = nodes[leaves[0]]
            for leaf in leaves[1:]:
                total = total + nodes[leaf]
            steps.append(total / len(leaves))
            state = nodes[-1] if carry_last else steps[-1]
        outputs.append(torch.stack(steps) if steps else projected[m][..., : h0.shape[1]])
        states.append(state)
    return torch.cat(outputs, dim=1), torch.cat(states)


def _backend(x: Tensor, asked: str | None) -> str | None:
    """Return the backend that runs, or None for the reference."""
    from hwnas import kernels
    from hwnas.kernels.backends import backend_for

    name = asked or kernels.forced()
    if name == "reference":
        return None
    backend = backend_for(x.device, x.dtype, name)
    if backend is None and asked is not None:
        raise UserInputError(
            f"the kernel backend {asked!r} does not take {x.dtype} on {x.device}",
            "leave backend out: hwnas then takes one that does",
        )
    return None if backend is None else backend.name


def _flat(lists: Sequence[Sequence[int]]) -> list[int]:
    return [value for each in lists for value in each]


def _cut(flat: Sequence[int], parts: int) -> list[list[int]]:
    size = len(flat) // parts
    return [list(flat[part * size : (part + 1) * size]) for part in range(parts)]


def _forward(
    x: Tensor,
    h0: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Sequence[Tensor],
    previous: Sequence[int],
    activations: Sequence[int],
    edge_index: Sequence[int],
    cells: int,
    carry_last: bool,
    backend: str,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    from hwnas.kernels.backends import backend_named

    check_operands(x, h0, w_input, w_hidden, edges, cells)
    lists = (_cut(previous, cells), _cut(activations, cells), _cut(edge_index, cells))
    return backend_named(backend).rnn_cell(x, h0, w_input, w_hidden, edges, *lists, carry_last)


def _backward(
    d_output: Tensor,
    d_state: Tensor,
    saved: Sequence[Tensor],
    x: Tensor,
    h0: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Sequence[Tensor],
    previous: Sequence[int],
    activations: Sequence[int],
    edge_index: Sequence[int],
    cells: int,
    carry_last: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    from hwnas.kernels.backends import backend_named

    check_operands(x, h0, w_input, w_hidden, edges, cells)
    lists = (_cut(previous, cells), _cut(activations, cells), _cut(edge_index, cells))
    return backend_named(backend).rnn_cell_backward(
        d_output, d_state, saved, x, h0, w_input, w_hidden, edges, *lists, carry_last
    )


def _fake(
    x: Tensor,
    h0: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Sequence[Tensor],
    previous: Sequence[int],
    activations: Sequence[int],
    edge_index: Sequence[int],
    cells: int,
    carry_last: bool,
    backend: str,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    from hwnas.kernels.backends import backend_named

    steps, rows, _ = x.shape
    hidden, nodes = h0.shape[1], len(activations) // cells
    shapes = backend_named(backend).rnn_saved_shapes(steps, rows, hidden, nodes)
    saved = [x.new_empty(shape) for shape in shapes]
    return x.new_empty((steps, rows, hidden)), x.new_empty((rows, hidden)), saved


def _fake_backward(
    d_output: Tensor,
    d_state: Tensor,
    saved: Sequence[Tensor],
    x: Tensor,
    h0: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Sequence[Tensor],
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    return (
        x.new_empty(x.shape),
        h0.new_empty(h0.shape),
        w_input.new_empty(w_input.shape),
        w_hidden.new_empty(w_hidden.shape),
        [edge.new_empty(edge.shape) for edge in edges],
    )


class _RnnCell(torch.autograd.Function):
    """The operator's autograd, over a flat list of tensors.

    The one of `torch.library` takes an empty list of integers for a list of tensors.
    """

    @staticmethod
    def forward(ctx: Any, architecture: tuple[Any, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        x, h0, w_input, w_hidden, *edges = tensors
        with torch._C._AutoDispatchBelowAutograd():
            output, state, saved = torch.ops.hwnas.rnn_cell(
                x, h0, w_input, w_hidden, edges, *architecture
            )
        ctx.architecture = architecture
        ctx.operands = len(tensors)
        ctx.save_for_backward(*tensors, *saved)
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)
        return output, state, *saved

    @staticmethod
    def backward(
        ctx: Any, d_output: Tensor | None, d_state: Tensor | None, *_: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, h0, w_input, w_hidden, *edges = ctx.saved_tensors[: ctx.operands]
        saved = ctx.saved_tensors[ctx.operands :]
        if d_output is None:
            d_output = x.new_zeros((*x.shape[:2], h0.shape[1]))
        if d_state is None:
            d_state = torch.zeros_like(h0)
        *gradients, d_edges = torch.ops.hwnas.rnn_cell_backward(
            d_output, d_state, saved, x, h0, w_input, w_hidden, edges, *ctx.architecture
        )
        return (None, *gradients, *d_edges)


def _autograd(
    x: Tensor,
    h0: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    edges: Sequence[Tensor],
    *architecture: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    output, state, *saved = _RnnCell.apply(architecture, x, h0, w_input, w_hidden, *edges)  # type: ignore[no-untyped-call]
    return output, state, saved


class _Once(torch.autograd.Function):
    """The gradient's own autograd, which there is none of."""

    @staticmethod
    def forward(_: Any, call: tuple[Any, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        """`call` holds the number of saved tensors, then the architecture."""
        count, *architecture = call
        d_output, d_state, *rest = tensors
        saved, (x, h0, w_input, w_hidden, *edges) = rest[:count], rest[count:]
        with torch._C._AutoDispatchBelowAutograd():
            *gradients, d_edges = torch.ops.hwnas.rnn_cell_backward(
                d_output, d_state, saved, x, h0, w_input, w_hidden, edges, *architecture
            )
        return *gradients, *d_edges

    @staticmethod
    def backward(*_: Any) -> NoReturn:
        raise UserInputError(
            "hwnas::rnn_cell has no second derivative",
            "run the reference (backend='reference') where gradients of gradients are needed",
        )


def _autograd_once(
    d_output: Tensor, d_state: Tensor, saved: Sequence[Tensor], *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    x, h0, w_input, w_hidden, edges, *architecture = rest
    operands = (d_output, d_state, *saved, x, h0, w_input, w_hidden, *edges)
    dx, dh0, d_input, d_hidden, *d_edges = _Once.apply((len(saved), *architecture), *operands)  # type: ignore[no-untyped-call]
    return dx, dh0, d_input, d_hidden, d_edges


for _key in ("CPU", "CUDA"):
    _LIBRARY.impl("rnn_cell", _forward, _key)
    _LIBRARY.impl("rnn_cell_backward", _backward, _key)
torch.library.register_fake("hwnas::rnn_cell", _fake, lib=_LIBRARY)
torch.library.register_fake("hwnas::rnn_cell_backward", _fake_backward, lib=_LIBRARY)
_LIBRARY.impl("rnn_cell", _autograd, "Autograd")
_LIBRARY.impl("rnn_cell_backward", _autograd_once, "Autograd")
