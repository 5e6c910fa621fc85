"""The sampled ENAS recurrent cell: one call against PyTorch op after op."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from _images import COMPILED, FUSED, Problem, compiled
from _measure import Contender, Settings
from torch.nn.functional import cross_entropy, embedding, linear

from hwnas import kernels
from hwnas.kernels.rnn_cell import rnn_cell

#: Computes `[T, M * B, H]` from x, h0 and the weights.
Form: TypeAlias = Callable[..., torch.Tensor]

NODES, STEPS, WORDS = 12, 35, 10_000
GATE_STEPS, GATE_ROWS = 4, 4
EAGER, ONE_BY_ONE = "eager", "one after the other"
LEARNING_RATE, CLIP_NORM = 20.0, 0.25  # of ENAS on Penn Treebank
#: By the numbers that say which activation a node has.
ACTIVATIONS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    torch.tanh,
    torch.relu,
    lambda x: x,
    torch.sigmoid,
)


@dataclass(frozen=True)
class Cell:
    """A sampled cell: which node feeds nodes 1, 2, …, and the activation of each node."""

    previous: tuple[int, ...]
    activations: tuple[int, ...]

    @classmethod
    def sample(cls, rng: random.Random) -> Cell:
        """Sample uniformly."""
        previous = tuple(rng.randrange(j) for j in range(1, NODES))
        return cls(previous, tuple(rng.randrange(len(ACTIVATIONS)) for _ in range(NODES)))

    @property
    def edges(self) -> list[tuple[int, int]]:
        """(node, node that it feeds) for nodes 1, 2, …: what a matrix belongs to."""
        return [(before, j) for j, before in enumerate(self.previous, start=1)]

    @property
    def leaves(self) -> list[int]:
        """The nodes that feed no other."""
        return [j for j in range(NODES) if j not in self.previous]


def eager(
    cell: Cell,
    x: torch.Tensor,
    h: torch.Tensor,
    weights: Mapping[str, torch.Tensor],
    step: Callable[..., torch.Tensor] | None = None,
) -> torch.Tensor:
    """Unroll a cell with PyTorch's ops; the input's product is one matrix product for all steps."""
    own = [weights[_edge_name(edge)] for edge in cell.edges]
    step = step or _step
    outputs = []
    for from_input in linear(x, weights["w_input"]).unbind(0):
        h = step(cell, from_input, h, weights["w_hidden"], own)
        outputs.append(h)
    return torch.stack(outputs)


def _step(
    cell: Cell,
    from_input: torch.Tensor,
    h: torch.Tensor,
    w_hidden: torch.Tensor,
    edges: Sequence[torch.Tensor],
) -> torch.Tensor:
    states: list[torch.Tensor] = []
    for j, kind in enumerate(cell.activations):
        before = h if j == 0 else states[cell.previous[j - 1]]
        sums = from_input + linear(h, w_hidden) if j == 0 else linear(before, edges[j - 1])
        gate, value = sums.chunk(2, dim=-1)
        states.append(before + torch.sigmoid(gate) * (ACTIVATIONS[kind](value) - before))
    leaves = [states[j] for j in cell.leaves]
    return torch.stack(leaves).mean(0) if len(leaves) > 1 else leaves[0]


class Cells:
    """M cells that are sampled from one supernet, each with a batch of its own.

    Args:
        hidden: Size of states and inputs.
        rows: Batch of one cell.
        count: Number of cells.
    """

    def __init__(self, hidden: int, rows: int, count: int = 1) -> None:
        what = "RNN cell" if count == 1 else f"{count} sampled RNN cells"
        self.name = f"{what} {NODES} nodes x {STEPS} steps, hidden {hidden}, batch {rows}"
        self.hidden, self.rows = hidden, rows
        rng = random.Random(0)
        self.cells = [Cell.sample(rng) for _ in range(count)]

    def problem(
        self,
        device: str,
        form: Form,
        *,
        steps: int = STEPS,
        rows: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Problem:
        """Return all cells, unrolled; `form` computes `[T, M * B, H]` from the leaves."""
        draw = _Draw(device, dtype)
        weights = self._weights(draw)
        return self._problem(draw, weights, form, steps, len(self.cells) * (rows or self.rows))

    def contenders(self, wanted: Sequence[str], settings: Settings) -> dict[str, Contender]:
        """Return the fused form and the baselines that are wanted."""
        device, backend = settings.device, settings.backend
        made = {FUSED: Contender(self.problem(device, self._fused).step, backend)}
        if EAGER in wanted:
            made[EAGER] = Contender(self.problem(device, self._eager).step)
        if ONE_BY_ONE in wanted:
            made[ONE_BY_ONE] = Contender(self._one_by_one(device), backend)
        if COMPILED in wanted:
            # A step, not the unrolled cell: 35 times as many nodes take as much longer to compile.
            step = compiled(_step)
            problem = self.problem(device, functools.partial(self._eager, step=step))
            made[COMPILED] = Contender(problem.step)
        return made

    def for_gate(self, device: str, dtype: torch.dtype) -> Problem:
        """Return few steps of few rows; the reference is this file's eager form."""
        is_reference = kernels.chosen(torch.device(device), dtype) is None
        form = self._eager if is_reference else self._fused
        return self.problem(device, form, steps=GATE_STEPS, rows=GATE_ROWS, dtype=dtype)

    def _weights(self, draw: _Draw) -> dict[str, torch.Tensor]:
        size = self.hidden
        used = sorted({edge for cell in self.cells for edge in cell.edges})
        names = ("w_input", "w_hidden", *map(_edge_name, used))
        return {name: draw(2 * size, size, scale=0.7 * size**-0.5) for name in names}

    def _problem(
        self, draw: _Draw, weights: Mapping[str, torch.Tensor], form: Form, steps: int, batch: int
    ) -> Problem:
        x, h0 = draw(steps, batch, self.hidden), draw(batch, self.hidden)
        gradient = draw(steps, batch, self.hidden).detach()
        return Problem({"x": x, "h0": h0, **weights}, lambda: form(x, h0, weights), gradient)

    def _one_by_one(self, device: str) -> Callable[[], None]:
        """Return a function that trains the cells' weights with a call for each cell."""
        draw = _Draw(device, torch.float32)
        weights = self._weights(draw)
        parts = [
            self._problem(draw, weights, functools.partial(_call, [cell]), STEPS, self.rows)
            for cell in self.cells
        ]

        def step() -> None:
            for part in parts:
                torch.autograd.backward(part.forward(), part.gradient)
            for part in parts:
                part.drop_gradients()

        return step

    def _fused(
        self, x: torch.Tensor, h0: torch.Tensor, weights: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Run all cells in one call, with the backend that `hwnas.kernels.use` has set."""
        return _call(self.cells, x, h0, weights)

    def _eager(
        self,
        x: torch.Tensor,
        h0: torch.Tensor,
        weights: Mapping[str, torch.Tensor],
        step: Callable[..., torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Run one cell after the other, PyTorch op after op."""
        count = len(self.cells)
        parts = zip(self.cells, x.chunk(count, 1), h0.chunk(count), strict=True)
        found = [eager(cell, own, start, weights, step) for cell, own, start in parts]
        return torch.cat(found, dim=1) if count > 1 else found[0]


class LanguageStep:
    """A training step of an ENAS language model with one sampled cell.

    Embedding, unrolled cell, decoder that is tied to the embedding, cross-entropy over all words,
    clipping and SGD. With thousands of words the decoder, which both sides leave to PyTorch, takes
    as long as the cell; with the 65 characters of tiny-shakespeare it is the cell that counts.
    """

    def __init__(self, words: int = WORDS, hidden: int = 256, rows: int = 64) -> None:
        self.name = f"RNN supernet step, hidden {hidden}, batch {rows}, {words} words"
        self.words, self.hidden, self.rows = words, hidden, rows
        self.cell = Cell.sample(random.Random(0))

    def contenders(self, wanted: Sequence[str], settings: Settings) -> dict[str, Contender]:
        """Return both sides, each with weights of its own."""
        fused = self._step(settings.device, functools.partial(_call, [self.cell]))
        by_ops = self._step(settings.device, functools.partial(eager, self.cell))
        return {FUSED: Contender(fused, settings.backend), EAGER: Contender(by_ops)}

    def for_gate(self, device: str, dtype: torch.dtype) -> Problem:
        """Return the loss of a few steps of few rows; the reference is this file's eager form."""
        is_reference = kernels.chosen(torch.device(device), dtype) is None
        form: Form = (
            functools.partial(eager, self.cell)
            if is_reference
            else functools.partial(_call, [self.cell])
        )
        return self._problem(device, dtype, form, GATE_STEPS, GATE_ROWS)

    def _problem(
        self, device: str, dtype: torch.dtype, cell: Form, steps: int, rows: int
    ) -> Problem:
        draw, size = _Draw(device, dtype), self.hidden
        names = ("w_input", "w_hidden", *map(_edge_name, self.cell.edges))
        leaves = {name: draw(2 * size, size, scale=0.7 * size**-0.5) for name in names}
        leaves["words"] = draw(self.words, size, scale=size**-0.5)
        h0 = torch.zeros(rows, size, dtype=dtype, device=device)
        generator = torch.Generator().manual_seed(0)
        text = torch.randint(0, self.words, (steps + 1, rows), generator=generator).to(device)

        def forward() -> torch.Tensor:
            states = cell(embedding(text[:-1], leaves["words"]), h0, leaves)
            logits = linear(states.flatten(0, 1), leaves["words"])
            return cross_entropy(logits, text[1:].flatten())

        return Problem(leaves, forward, torch.ones((), dtype=dtype, device=device))

    def _step(self, device: str, cell: Form) -> Callable[[], None]:
        problem = self._problem(device, torch.float32, cell, STEPS, self.rows)
        leaves = list(problem.leaves.values())
        optimiser = torch.optim.SGD(leaves, lr=LEARNING_RATE)

        def step() -> None:
            optimiser.zero_grad()
            torch.autograd.backward(problem.forward())
            torch.nn.utils.clip_grad_norm_(leaves, CLIP_NORM)
            optimiser.step()

        return step


class _Draw:
    """Draws leaves, the same ones each time."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self._to: tuple[str, torch.dtype] = (device, dtype)
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        value = torch.randn(shape, generator=self._generator) * scale
        return value.to(*self._to).requires_grad_()


def _edge_name(edge: tuple[int, int]) -> str:
    return f"edge {edge[0]} to {edge[1]}"


def _call(
    cells: Sequence[Cell], x: torch.Tensor, h0: torch.Tensor, weights: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    output, _ = rnn_cell(
        x,
        h0,
        weights["w_input"],
        weights["w_hidden"],
        {edge: weights[_edge_name(edge)] for cell in cells for edge in cell.edges},
        [(cell.previous, cell.activations) for cell in cells],
        backend=kernels.forced(),
    )
    return output
