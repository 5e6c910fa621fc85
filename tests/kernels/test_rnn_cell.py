"""The recurrent cell of every backend against the reference, in float64 and in float32."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from hwnas.errors import ShapeError, UserInputError
from hwnas.kernels.rnn_cell import Cell, rnn_cell
from hwnas.testing.kernels import ON_CPU, ready

backends = pytest.mark.parametrize("name", ON_CPU)


@dataclass(frozen=True)
class Case:
    steps: int
    cells: int
    batch: int
    width: int
    hidden: int
    nodes: int
    carry_last: bool = False

    def __str__(self) -> str:
        return "T{}-M{}-B{}-E{}-H{}-K{}{}".format(
            *list(vars(self).values())[:6], "-last" if self.carry_last else ""
        )


#: Sizes below, at and above a vector and a row tile; one and several cells and threads of work.
CASES = (
    Case(1, 1, 1, 1, 1, 1),
    Case(3, 1, 1, 2, 3, 4),
    Case(2, 1, 4, 5, 17, 5, carry_last=True),
    Case(2, 3, 5, 9, 17, 4),
    Case(3, 1, 14, 63, 63, 3),
    Case(2, 1, 13, 20, 32, 4, carry_last=True),
    Case(3, 1, 70, 16, 40, 12),
    Case(2, 8, 20, 33, 48, 12),
    Case(2, 3, 7, 3, 63, 6, carry_last=True),
    Case(2, 1, 300, 8, 20, 3),
)


def sample(case: Case, seed: int = 0) -> tuple[list[Tensor], dict[tuple[int, int], Tensor], Any]:
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    hidden, rows = case.hidden, case.cells * case.batch
    operands = [
        normal(case.steps, rows, case.width),
        normal(rows, hidden),
        normal(2 * hidden, case.width) * case.width**-0.5,
        normal(2 * hidden, hidden) * hidden**-0.5,
    ]
    pairs = [(i, j) for j in range(1, case.nodes) for i in range(j)]
    edges = {pair: normal(2 * hidden, hidden) * hidden**-0.5 for pair in pairs}
    cells: list[Cell] = [
        (
            [draw.randrange(j) for j in range(1, case.nodes)],
            [draw.randrange(4) for _ in range(case.nodes)],
        )
        for _ in range(case.cells)
    ]
    return operands, edges, cells


def gradients(case: Case, dtype: torch.dtype, backend: str) -> dict[str, Tensor]:
    """Output, state and every gradient of a used operand, by name."""
    operands, edges, cells = sample(case)
    generator = torch.Generator().manual_seed(1)
    operands = [each.to(dtype, copy=True).requires_grad_() for each in operands]
    edges = {pair: each.to(dtype, copy=True).requires_grad_() for pair, each in edges.items()}
    results = rnn_cell(*operands, edges, cells, carry_last=case.carry_last, backend=backend)
    upstream = [
        torch.randn(each.shape, generator=generator, dtype=torch.float64).to(dtype)
        for each in results
    ]
    torch.autograd.backward(results, upstream)
    named = dict(zip(("x", "h0", "w_input", "w_hidden"), operands, strict=True))
    named |= {f"edge{pair}": each for pair, each in edges.items()}
    found = {name: each.grad for name, each in named.items() if each.grad is not None}
    return {"output": results[0].detach(), "state": results[1].detach(), **found}


def is_small(case: Case, name: str) -> bool:
    """Triton's interpreter takes tens of milliseconds a program."""
    return name != "triton" or case.steps * case.nodes * case.cells * case.batch <= 120


@backends
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_as_exact_as_pytorchs(name: str, case: Case) -> None:
    ready(name)
    if not is_small(case, name):
        pytest.skip("too slow in the interpreter")
    exact = gradients(case, torch.float64, "reference")
    plain = gradients(case, torch.float32, "reference")
    found = gradients(case, torch.float32, name)
    assert found.keys() == exact.keys()
    for key, value in exact.items():
        scale = value.norm().clamp_min(1e-30)
        error = (found[key].double() - value).norm() / scale
        allowed = (plain[key].double() - value).norm() / scale
        assert error <= 2 * allowed + 2e-7, (key, float(error), float(allowed))


@backends
def test_empty_batch_and_no_steps(name: str) -> None:
    ready(name)
    for case in (Case(2, 1, 0, 4, 5, 3), Case(0, 1, 3, 4, 5, 3)):
        found = gradients(case, torch.float32, name)
        assert found["output"].shape == (case.steps, case.batch, case.hidden)
        assert not found["w_input"].any()
        assert not found["w_hidden"].any()
    assert found["state"].equal(sample(case)[0][1].float())


def test_same_bits_for_every_number_of_threads() -> None:
    case = CASES[7]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = gradients(case, torch.float32, "cpu")
        for count in (2, 3):
            torch.set_num_threads(count)
            for key, value in gradients(case, torch.float32, "cpu").items():
                assert value.equal(alone[key]), key
    finally:
        torch.set_num_threads(threads)


@backends
def test_cells_in_one_call_are_cells_one_after_the_other(name: str) -> None:
    ready(name)
    operands, edges, cells = sample(Case(2, 3, 4, 5, 17, 4))
    x, h0, w_input, w_hidden = (each.float() for each in operands)
    edges = {pair: each.float() for pair, each in edges.items()}
    together, _ = rnn_cell(x, h0, w_input, w_hidden, edges, cells, backend=name)
    for m, cell in enumerate(cells):
        rows = slice(4 * m, 4 * m + 4)
        alone, _ = rnn_cell(x[:, rows], h0[rows], w_input, w_hidden, edges, [cell], backend=name)
        torch.testing.assert_close(together[:, rows], alone)


def test_relu_passes_nan_on() -> None:
    ones = torch.ones(2, 1)
    x = torch.tensor([[[torch.nan]], [[1.0]]])
    output, _ = rnn_cell(x, torch.zeros(1, 1), ones, ones, {}, [([], [1])], backend="cpu")
    assert output.isnan().all()


def test_activations_within_two_units_in_the_last_place() -> None:
    points = torch.cat([torch.linspace(-30, 30, 60001), torch.logspace(-30, 0, 4001)])
    weights = torch.tensor([[0.0], [1.0]])
    for activation, function in ((0, torch.tanh), (3, torch.sigmoid)):
        output, _ = rnn_cell(
            points.view(1, -1, 1),
            torch.zeros(points.numel(), 1),
            weights,
            torch.zeros(2, 1),
            {},
            [([], [activation])],
            backend="cpu",
        )
        exact = function(points.double())
        found = output.flatten().double() * 2  # the gate is 1/2
        assert ((found - exact).abs() / exact.abs()).max() < 3e-7


def op_arguments(requires_grad: bool, backend: str = "cpu") -> tuple[Any, ...]:
    operands, edges, cells = sample(Case(2, 2, 3, 4, 5, 3))
    tensors = [each.float().requires_grad_(requires_grad) for each in operands]
    matrices = [each.float().requires_grad_(requires_grad) for each in edges.values()]
    places = {pair: place for place, pair in enumerate(edges)}
    previous = [i for sources, _ in cells for i in sources]
    index = [places[i, j] for sources, _ in cells for j, i in enumerate(sources, start=1)]
    activations = [a for _, functions in cells for a in functions]
    return (*tensors, matrices, previous, activations, index, len(cells), False, backend)


def test_opcheck() -> None:
    arguments = op_arguments(requires_grad=True)
    torch.library.opcheck(torch.ops.hwnas.rnn_cell.default, arguments)


@backends
def test_saved_tensors_have_the_shapes_that_tracing_is_told(name: str) -> None:
    ready(name)
    arguments = op_arguments(requires_grad=False, backend=name)
    with FakeTensorMode(allow_non_fake_inputs=True):
        traced = torch.ops.hwnas.rnn_cell(*arguments)
    found = torch.ops.hwnas.rnn_cell(*arguments)
    assert [each.shape for each in traced[2]] == [each.shape for each in found[2]]


def test_opcheck_of_the_gradient() -> None:
    arguments = op_arguments(requires_grad=False)
    output, state, saved = torch.ops.hwnas.rnn_cell(*arguments)
    torch.library.opcheck(
        torch.ops.hwnas.rnn_cell_backward.default, (output, state, saved, *arguments)
    )


def test_double_backward_is_an_error() -> None:
    x, h0, *rest = op_arguments(requires_grad=True)
    output, _, _ = torch.ops.hwnas.rnn_cell(x, h0, *rest)
    (dx,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    with pytest.raises(UserInputError, match="second derivative"):
        dx.sum().backward()


def test_operands_of_any_layout() -> None:
    operands, edges, cells = sample(Case(3, 1, 4, 5, 6, 4))
    x, h0, w_input, w_hidden = (each.float() for each in operands)
    edges = {pair: each.float() for pair, each in edges.items()}
    expected, _ = rnn_cell(x, h0, w_input, w_hidden, edges, cells, backend="cpu")
    strided = [
        each.transpose(-1, -2).contiguous().transpose(-1, -2) for each in (x, h0, w_input, w_hidden)
    ]
    strided_edges = {pair: each.t().contiguous().t() for pair, each in edges.items()}
    found, _ = rnn_cell(*strided, strided_edges, cells, backend="cpu")
    assert found.equal(expected)


def test_what_does_not_fit_is_refused() -> None:
    operands, edges, cells = sample(Case(2, 1, 3, 4, 5, 3))
    with pytest.raises(ShapeError, match="rnn_cell expects x"):
        rnn_cell(operands[0][..., 1:], *operands[1:], edges, cells)
    with pytest.raises(UserInputError, match="cell 0 of rnn_cell is not valid"):
        rnn_cell(*operands, edges, [([0, 2], [0, 0, 0])])
    with pytest.raises(UserInputError, match=r"reads edge \(0, 1\)"):
        rnn_cell(*operands, {}, [([0, 0], [0, 0, 0])])
    with pytest.raises(UserInputError, match="at least one cell"):
        rnn_cell(*operands, edges, [])


@pytest.mark.parametrize("place", range(4))
def test_operands_of_mixed_types_are_refused(place: int) -> None:
    """Kernels get addresses: a half-sized matrix would be read past its end."""
    arguments = list(op_arguments(requires_grad=False))
    arguments[place] = arguments[place].half()
    with pytest.raises(ShapeError, match=r"torch\.float16"):
        torch.ops.hwnas.rnn_cell(*arguments)
