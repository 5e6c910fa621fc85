"""Language modelling: the next token of a text.

Batches are those of the standard evaluation (Merity's `awd-lstm-lm`, which ENAS, DARTS and their
successors use): a text is cut into N columns of equal length, and windows of T tokens are read one
after the other, the state carried over from each to the next, without a gradient through it.

A figure for a whole text counts every token but its first exactly once, and is the exponential of
the mean over these. The public evaluations differ in three details: they leave out what does not
divide into columns, and the first token of each column (none is left out with one column, as in
their tests), and awd-lstm-lm, DARTS and the PyTorch port of ENAS divide the sum by one token more
than they predict. With one column the state is carried through the whole text; with more, each
starts from zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.data import TextDataset, TextSplit
from hwnas.errors import UserInputError
from hwnas.graph.ops.carried import Carried
from hwnas.supernet.tasks import TASKS, Batch, Outcome, Task, Window

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from hwnas.data import AnySplit, Dataset
    from hwnas.graph import Graph, RunMode
    from hwnas.supernet.config import OptimiserConfig
    from hwnas.supernet.weights import WeightStore

#: Target of a position behind the end of a text; PyTorch's cross-entropy leaves it out.
NOTHING = -100


@TASKS.register("language_model")
class LanguageModel(Task):
    """A text; the score is 1 / perplexity, the geometric mean of the right tokens' probabilities.

    A graph's outputs are the logits `(T, words)`; then the state of each of its `carried` ops, in
    their order; then, where it has them, the sequences `(T, H)` for the regularisation of
    activations: the dropped output and the raw one.

    Deviation: the published code draws the length of each window anew (around T, in AWD-LSTM and
    enas_lm); a graph has one length, so all windows have T tokens, and the rest of a column, fewer
    than T, is left out in training. It is read when a whole text is scored.
    """

    quality = "perplexity"
    unit = ""
    better = "less"

    def run(
        self,
        graph: Graph,
        store: WeightStore,
        batch: Batch,
        mode: RunMode,
        config: OptimiserConfig,
        carried: Mapping[str, torch.Tensor],
    ) -> Outcome:
        """Return the cross-entropy a token, with what regularises activations."""
        from torch.nn.functional import cross_entropy

        from hwnas.supernet.run import run_all

        assert isinstance(batch, Window)
        names = carried_names(graph)
        before = carried if batch.follows else {}
        logits, *others = run_all(graph, store, batch.tokens, mode, before)
        states = {name: value.detach() for name, value in zip(names, others, strict=False)}
        targets = batch.targets.flatten()
        count = int((targets != NOTHING).sum())
        loss = cross_entropy(logits.flatten(0, 1), targets, ignore_index=NOTHING)
        mean = loss.item()
        if mode.dropout:
            loss = loss + _regularisation(others[len(names) :], config)
        return Outcome(loss, mean, mean * count, count, states)

    def score(self, total: float, count: int) -> float:
        """Return exp(-mean cross-entropy)."""
        return math.exp(-total / count)

    def drawn(self, score: float) -> float:
        """Return the perplexity."""
        return 1 / score if score > 0 else math.inf

    def text(self, score: float, decimals: int = 1) -> str:
        """Return the perplexity, with three significant digits more than `decimals`."""
        return f"{1 / score:.{decimals + 3}g}" if score > 0 else "infinite"

    def steps(self, dataset: Dataset, size: int) -> int:
        """Return the number of whole windows."""
        return _steps(dataset.train, size, dataset)

    def epoch(self, dataset: Dataset, size: int, seed: int) -> Iterator[Batch]:
        """Yield the windows of the training text in their order; the seed plays no part.

        Raises:
            UserInputError: The text is too short for so many columns.
        """
        _refuse_short(dataset.train, size, dataset)
        columns = _columns(_tokens(dataset.train), size)
        return _windows(columns[:, :-1], columns[:, 1:], _length(dataset), is_whole=True)

    def plain(self, dataset: Dataset, size: int, seed: int, count: int) -> list[Batch]:
        """Return the first windows of the training text."""
        found = self.epoch(dataset, size, seed)
        return [window for window, _ in zip(found, range(count), strict=False)]

    def valid_steps(self, dataset: Dataset, size: int) -> int:
        """Return the number of whole windows of the validation text."""
        _refuse_short(dataset.valid, size, dataset)
        return _steps(dataset.valid, size, dataset)

    def valid(self, dataset: Dataset, size: int, seed: int, number: int) -> Batch:
        """Return one window of the validation text; it follows the one before."""
        columns = _columns(_tokens(dataset.valid), size)
        before, after = columns[:, :-1], columns[:, 1:]
        return next(_windows(before, after, _length(dataset), is_whole=True, first=number))

    def whole(self, dataset: Dataset, split: AnySplit, size: int) -> Iterator[Batch]:
        """Yield all windows of a text, the last one shorter, in `data.evaluation_batch` columns.

        Each token but the first is a target exactly once: the last target of a column is the first
        token of the next, and the last column may be shorter.
        """
        assert isinstance(dataset, TextDataset)
        tokens = _tokens(split)
        height = -(-(len(tokens) - 1) // dataset.text.evaluation_batch)
        count = -(-(len(tokens) - 1) // height)
        filled = np.full(count * height + 1, NOTHING, np.int64)
        filled[: len(tokens)] = tokens
        targets = filled[1:].reshape(count, height)
        before = np.maximum(filled[:-1], 0).reshape(count, height)
        return _windows(before, targets, _length(dataset), is_whole=False)

    def inputs(self, dataset: Dataset, count: int) -> torch.Tensor:
        """Return tokens `[n, T]`."""
        import torch

        tokens, length = _tokens(dataset.valid), _length(dataset)
        count = max(1, min(count, len(tokens) // length))
        rows = np.resize(tokens, (count, length))
        return torch.from_numpy(rows)

    def card(self, dataset: Dataset) -> dict[str, Any]:
        """Return the shape and what the numbers mean."""
        return {
            "name": "input",
            "shape": ["N=1", *dataset.input_shape],
            "dtype": "int64",
            "scale": "tokens: the index of each word in `classes`; the state starts from zeros",
        }


def carried_names(graph: Graph) -> list[str]:
    """Return the names of a graph's `carried` ops, in their order."""
    return [node.op.name for node in graph.nodes if isinstance(node.op, Carried)]


def _regularisation(
    hidden: Sequence[torch.Tensor], config: OptimiserConfig
) -> torch.Tensor | float:
    """Return what is added to the loss for large, fast or unsteady activations.

    Merity et al. 2017, "Revisiting Activation Regularization": α · mean(dropped²) and
    β · mean((hₜ - hₜ₋₁)²), the latter also called slowness. Krueger & Memisevic 2016: the norm
    stabiliser γ · mean((‖hₜ‖ - 5)²), with the constant of the public ENAS port.
    """
    if not hidden:
        return 0.0
    dropped, raw = hidden
    total: torch.Tensor | float = 0.0
    if config.activation_penalty:
        total = total + config.activation_penalty * dropped.square().mean()
    if config.slowness_penalty and raw.shape[1] > 1:
        total = total + config.slowness_penalty * raw.diff(dim=1).square().mean()
    if config.norm_penalty:
        total = total + config.norm_penalty * (raw.norm(dim=-1) - 5.0).square().mean()
    return total


def _tokens(split: AnySplit) -> NDArray[np.int64]:
    assert isinstance(split, TextSplit), "a language model needs a text"
    return split.tokens


def _length(dataset: Dataset) -> int:
    return dataset.input_shape[0]


def _columns(tokens: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Cut a text into `count` columns `[count, L]`; what does not divide is left out."""
    count = min(count, len(tokens) // 2)
    length = len(tokens) // count
    return tokens[: count * length].reshape(count, length)


def _steps(split: AnySplit, size: int, dataset: Dataset) -> int:
    return (int(_columns(_tokens(split), size).shape[1]) - 1) // _length(dataset)


def _refuse_short(split: AnySplit, size: int, dataset: Dataset) -> None:
    if _steps(split, size, dataset) < 1:
        raise UserInputError(
            f"{len(split)} tokens in {size} columns are less than one window of "
            f"{_length(dataset)} tokens each",
            "use a smaller batch size, or a smaller data.bptt",
        )


def _windows(
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    length: int,
    *,
    is_whole: bool,
    first: int = 0,
) -> Iterator[Window]:
    """Yield the windows of columns from number `first` on, the last one filled up or left out.

    Args:
        before: Tokens `[N, L]`.
        after: What follows each.
        length: T, tokens of a window.
        is_whole: Whether windows of fewer tokens are left out.
        first: The first window that is wanted.
    """
    import torch

    count, height = before.shape
    for start in range(first * length, height, length):
        stop = min(start + length, height)
        if is_whole and stop - start < length:
            return
        tokens = np.zeros((count, length), np.int64)
        targets = np.full((count, length), NOTHING, np.int64)
        tokens[:, : stop - start] = before[:, start:stop]
        targets[:, : stop - start] = after[:, start:stop]
        yield Window(torch.from_numpy(tokens), torch.from_numpy(targets), follows=start > 0)
