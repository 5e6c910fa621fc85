"""The recurrent cell in Triton's interpreter, against float64; conftest.py switches it on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from hwnas.kernels.rnn_cell import reference

pytest.importorskip("triton", reason="Triton is not installed")
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="kernels are compiled where there is a GPU"
)


@dataclass(frozen=True)
class Case:
    """Cells and sizes; `carry_last` is the only thing that a kernel is compiled for."""

    steps: int = 2
    cells: int = 1
    batch: int = 2
    inputs: int = 3
    width: int = 5
    nodes: int = 4
    carry_last: bool = False
    seed: int = 0

    def architectures(self) -> tuple[list[list[int]], list[list[int]], list[list[int]], int]:
        """Return previous nodes, activations, edges and how many edges there are."""
        rng = random.Random(self.seed)
        previous = [[rng.randrange(j) for j in range(1, self.nodes)] for _ in range(self.cells)]
        kinds = [[rng.randrange(4) for _ in range(self.nodes)] for _ in range(self.cells)]
        numbers: dict[tuple[int, int], int] = {}
        edges = [
            [numbers.setdefault((i, j), len(numbers)) for j, i in enumerate(own, 1)]
            for own in previous
        ]
        return previous, kinds, edges, len(numbers)

    def operands(self, edges: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        rows = self.cells * self.batch
        shapes = [(self.steps, rows, self.inputs), (rows, self.width)]
        shapes += [(2 * self.width, self.inputs), *[(2 * self.width, self.width)] * (1 + edges)]
        found = [torch.randn(shape, generator=generator) for shape in shapes]
        return [*found[:2], *(each / each.shape[1] ** 0.5 for each in found[2:])]


def plain(operands: Sequence[Tensor], case: Case) -> tuple[Tensor, Tensor]:
    previous, kinds, edges, _ = case.architectures()
    return reference(*operands[:4], operands[4:], previous, kinds, edges, case.carry_last)


def plain_with_gradients(
    operands: Sequence[Tensor], gradients: Sequence[Tensor], case: Case, dtype: torch.dtype
) -> list[Tensor]:
    leaves = [each.to(dtype).clone().requires_grad_() for each in operands]
    results = plain(leaves, case)
    found = torch.autograd.grad(results, leaves, [each.to(dtype) for each in gradients])
    return [each.detach() for each in (*results, *found)]


def fused(operands: Sequence[Tensor], gradients: Sequence[Tensor], case: Case) -> list[Tensor]:
    from hwnas.kernels.triton.rnn import rnn_cell, rnn_cell_backward

    previous, kinds, edges, _ = case.architectures()
    given = (*operands[:4], operands[4:], previous, kinds, edges, case.carry_last)
    output, state, saved = rnn_cell(*given)
    *found, d_edges = rnn_cell_backward(*gradients, saved, *given)
    return [output, state, *found, *d_edges]


@pytest.fixture(autouse=True)
def poisoned_allocations() -> Iterator[None]:
    """Tensors that PyTorch leaves uninitialised hold NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


# Wide enough for the errors of many elements to be compared: with five, luck decides.
CASES = [
    pytest.param(Case(width=67), id="odd width"),
    pytest.param(Case(width=130, nodes=1), id="one node"),
    pytest.param(Case(width=64, nodes=1, carry_last=True), id="one node carried"),
    pytest.param(Case(cells=3, batch=1, width=64, seed=1), id="three cells"),
    pytest.param(
        Case(cells=2, batch=1, width=64, nodes=5, carry_last=True, seed=2),
        id="last node carried",
    ),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("dtype", "factor"),
    [
        (torch.float32, 2.0),
        (torch.float16, 2.0),
        # The interpreter cuts float32 off where hardware rounds to bfloat16: twice the error.
        pytest.param(torch.bfloat16, 4.0, marks=pytest.mark.slow),
    ],
    ids=["fp32", "fp16", "bf16"],
)
def test_is_as_exact_as_plain_pytorch(case: Case, dtype: torch.dtype, factor: float) -> None:
    operands = [each.to(dtype) for each in case.operands(case.architectures()[3])]
    outputs = [each.to(dtype) for each in plain(operands, case)]
    gradients = [torch.randn_like(each) for each in outputs]
    exact = plain_with_gradients(operands, gradients, case, torch.float64)
    known = plain_with_gradients(operands, gradients, case, dtype)
    found = fused(operands, gradients, case)
    names = ["output", "state", "dx", "dh0", "dw_input", "dw_hidden"]
    names += [f"d_edge {number}" for number in range(len(found) - len(names))]
    assert len(found) == len(exact)
    floor = torch.finfo(dtype).eps
    for name, mine, theirs, truth in zip(names, found, known, exact, strict=True):
        assert mine.dtype == dtype, name
        assert mine.shape == truth.shape, name
        allowed = factor * (theirs - truth).norm() + floor * truth.norm()
        assert (mine - truth).norm() <= allowed, name


def test_an_empty_batch_has_gradients_of_zero() -> None:
    case = Case(batch=0)
    operands = case.operands(case.architectures()[3])
    gradients = [torch.empty(2, 0, 5), torch.empty(0, 5)]
    output, state, dx, dh0, *weights = fused(operands, gradients, case)
    assert output.shape == (2, 0, 5)
    assert state.shape == dh0.shape == (0, 5)
    assert dx.shape == operands[0].shape
    assert all(not each.any() for each in weights)


def test_an_edge_that_no_cell_uses_has_a_gradient_of_zero() -> None:
    case = Case()
    operands = case.operands(case.architectures()[3] + 1)
    gradients = [torch.randn(2, 2, 5), torch.randn(2, 5)]
    assert not fused(operands, gradients, case)[-1].any()


def test_one_matrix_for_nodes_of_several_depths() -> None:
    from hwnas.kernels.triton.rnn import rnn_cell, rnn_cell_backward

    case = Case(nodes=3, seed=3)
    x, h0, w_input, w_hidden, matrix = (each.requires_grad_() for each in case.operands(1))
    given = (x, h0, w_input, w_hidden, [matrix], [[0, 1]], [[0, 3, 0]], [[0, 0]], False)
    results = reference(*given)
    gradients = [torch.randn_like(each) for each in results]
    wanted = torch.autograd.grad(results, (matrix, x), gradients)
    with torch.no_grad():
        _, _, saved = rnn_cell(*given)
        dx, _, _, _, (d_matrix,) = rnn_cell_backward(*gradients, saved, *given)
    torch.testing.assert_close(d_matrix, wanted[0])
    torch.testing.assert_close(dx, wanted[1])


def test_architectures_share_kernels() -> None:
    """What may differ between two architectures is data, or not what Triton specialises on."""
    from hwnas.kernels.triton._rnn_nodes import NOT_SPECIAL
    from hwnas.kernels.triton._spec import recording

    kinds = []
    for seed in range(2):
        case = Case(cells=2, nodes=5, seed=seed)
        with recording() as launches:
            operands = [each.to("meta") for each in case.operands(case.architectures()[3])]
            fused(operands, [operands[0].new_empty(2, 4, 5), operands[1]], case)
        kinds.append({(each.name, *each.meta.items(), each.num_warps) for each in launches})
        for launch in launches:
            scalars = [
                name
                for name, value in zip(launch.kernel.arg_names, launch.args, strict=False)
                if isinstance(value, int)
            ]
            assert set(scalars) == set(NOT_SPECIAL)
    assert kinds[0] == kinds[1]
