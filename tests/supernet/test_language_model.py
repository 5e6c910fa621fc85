"""The task of language models: windows, carried states, perplexity, regularisation."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from hwnas.data._text import TextDataset
from hwnas.data.penn_treebank import PennTreebank
from hwnas.data.shakespeare import Shakespeare
from hwnas.engine.config import SearchOptimiserConfig
from hwnas.errors import TrialFailed, UserInputError
from hwnas.estimators._training import score_child, train_child
from hwnas.graph import BATCH, EVAL, TRAIN, Architecture, Graph, GraphBuilder
from hwnas.spaces.lstm import LstmStack
from hwnas.supernet.config import OptimiserConfig
from hwnas.supernet.run import run_all
from hwnas.supernet.tasks import Window, task_of
from hwnas.supernet.tasks.language_model import NOTHING, LanguageModel
from hwnas.supernet.train import Trainer, evaluate, learning_rate
from hwnas.supernet.weights import WeightStore

T, WORDS, WIDTH = 4, 65, 6
SGD = OptimiserConfig(learning_rate=2.0, momentum=0.0, weight_decay=0.0)


def _data(**settings: object) -> Shakespeare:
    return Shakespeare(Shakespeare.Config(bptt=T, **settings))  # type: ignore[arg-type]


def _bigram(*, hidden: bool = False) -> Graph:
    """A network without memory: the next word's logits from the word alone."""
    g = GraphBuilder((T,), dtype="int64")
    x = g.embedding(g.input, vocabulary=WORDS, width=WIDTH, weights="embedding")
    logits = g.linear(x, features=WORDS, weights="decoder")
    return g.finish(logits, x, x) if hidden else g.finish(logits)


def test_windows_are_those_of_the_standard_evaluation() -> None:
    """Column c, window w holds the tokens c·L + w·T …; targets are the tokens that follow."""
    data = _data(train_tokens=103)
    text = data.train.tokens
    windows = list(LanguageModel().epoch(data, 5, seed=0))
    length = 103 // 5
    assert len(windows) == LanguageModel().steps(data, 5) == (length - 1) // T
    for number, window in enumerate(windows):
        assert isinstance(window, Window)
        assert window.follows == (number > 0)
        for column in range(5):
            start = column * length + number * T
            assert window.tokens[column].tolist() == text[start : start + T].tolist()
            assert window.targets[column].tolist() == text[start + 1 : start + T + 1].tolist()


@pytest.mark.parametrize("columns", [1, 7, 10, 55_768, 99_999])
def test_a_whole_text_is_scored_to_its_last_token(columns: int) -> None:
    data = _data(evaluation_batch=columns)
    windows = list(LanguageModel().whole(data, data.valid, 99))
    targets = torch.cat([each.targets for each in windows], dim=1)
    tokens = torch.cat([each.tokens for each in windows], dim=1)
    assert targets[targets != NOTHING].tolist() == data.valid.tokens[1:].tolist()
    assert tokens[targets != NOTHING].tolist() == data.valid.tokens[:-1].tolist()


def _of_lstm(store: WeightStore, tokens: torch.Tensor, hidden: int) -> float:
    """Perplexity under PyTorch's own LSTM, in one piece without windows, in float64."""
    lstm = torch.nn.LSTM(hidden, hidden, batch_first=True).double()
    words = store["embedding/weight"].double()
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(store["lstm0/input"])
        lstm.weight_hh_l0.copy_(store["lstm0/hidden"])
        lstm.bias_ih_l0.copy_(store["lstm0/bias"])
        lstm.bias_hh_l0.zero_()
        output, _ = lstm(words[tokens[:-1]][None])
        # The last layer is the embedding, but for its bias.
        scores = output[0] @ words.T + store["embedding/bias"].double()
        return math.exp(torch.nn.CrossEntropyLoss()(scores, tokens[1:]).item())


@pytest.mark.parametrize("text", ["characters", "words"])
def test_perplexity_is_that_of_plain_pytorch(text: str, tmp_path: Path) -> None:
    """With one column; a state that is lost between windows or a token left out would show."""
    data: TextDataset
    if text == "words":
        rng = np.random.default_rng(0)
        for part, count in (("train", 40), ("valid", 23), ("test", 9)):
            rows = [" ".join(f"w{i}" for i in rng.integers(0, 8, 9)) for _ in range(count)]
            (tmp_path / f"ptb.{part}.txt").write_text(" " + " \n ".join(rows) + " \n")
        data = PennTreebank(PennTreebank.Config(folder=tmp_path, bptt=T, evaluation_batch=1))
    else:
        data = _data(evaluation_batch=1, valid_fraction=0.0005015, train_tokens=400)
    hidden = 5
    config = LstmStack.Config(hidden=hidden, bound=0.5)
    graph = LstmStack(config, data.input_shape, data.classes).graph(Architecture({"layers": 1}))
    store = WeightStore(0)
    list(train_child(graph, store, data, SGD, epochs=1, batch_size=4, seed=0))
    assert (len(data.valid) - 1) % T != 0
    expected = _of_lstm(store, torch.from_numpy(data.valid.tokens.copy()), hidden)
    assert 1 / score_child(graph, store, data, data.valid, 7) == pytest.approx(expected, rel=1e-5)


def test_perplexity_is_that_of_an_independent_count() -> None:
    """A bigram network whose probabilities are known gives the perplexity of the text under it."""
    data = _data(evaluation_batch=1, valid_fraction=0.005)
    graph, store = _bigram(), WeightStore(0)
    store.trainable(graph)
    score = score_child(graph, store, data, data.valid, 7)
    with torch.no_grad():
        table = store["embedding/weight"] @ store["decoder/weight"].T + store["decoder/bias"]
        log_p = torch.log_softmax(table.double(), dim=1).numpy()
    tokens = data.valid.tokens
    expected = math.exp(np.mean([log_p[a, b] for a, b in pairwise(tokens)]))
    assert score == pytest.approx(expected, rel=1e-5)


def _counter() -> Graph:
    """Logits that are the carried state plus one: what came before is seen at once."""
    g = GraphBuilder((T,), dtype="int64")
    state = g.carried(g.input, name="state", size=(T, 2))
    one = g.embedding(g.input, vocabulary=2, width=2, weights="embedding")
    total = g.sum(state, one)
    return g.finish(g.linear(total, features=2, weights="decoder"), total)


def test_states_are_carried_from_window_to_window_and_start_from_zeros() -> None:
    graph, store, task = _counter(), WeightStore(0), LanguageModel()
    store.load({"embedding/weight": torch.ones(2, 2)})
    config, seen = OptimiserConfig(), {}
    tokens = torch.zeros(1, T, dtype=torch.int64)
    for number, follows in enumerate([False, True, True, False]):
        window = Window(tokens, tokens, follows)
        seen = task.run(graph, store, window, EVAL, config, seen).carried
        expected = [1.0, 2.0, 3.0, 1.0][number]
        assert torch.equal(seen["state"], torch.full((1, T, 2), expected))
    assert not seen["state"].requires_grad


def test_the_trainer_carries_states_on_and_forgets_them_at_the_start_of_a_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph, store = _counter(), WeightStore(0)
    before: list[bool] = []

    def spy(*arguments: object) -> object:
        before.append(bool(arguments[4]))
        return run_all(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("hwnas.supernet.run.run_all", spy)
    trainer = Trainer(store, OptimiserConfig(learning_rate=1e-3), 1, LanguageModel())
    tokens = torch.zeros(2, T, dtype=torch.int64)
    for follows in (False, True, True, False):
        trainer.step([graph], Window(tokens, tokens, follows), 0.0, TRAIN)
    assert before == [False, True, True, False]


def test_activations_are_regularised_as_published_in_training_only() -> None:
    graph, store, task = _bigram(hidden=True), WeightStore(0), LanguageModel()
    tokens = torch.randint(0, WORDS, (3, T), generator=torch.Generator().manual_seed(0))
    window = Window(tokens, tokens, follows=False)
    config = OptimiserConfig(activation_penalty=2.0, slowness_penalty=3.0, norm_penalty=0.5)
    plain = task.run(graph, store, window, TRAIN, OptimiserConfig(), {})
    found = task.run(graph, store, window, TRAIN, config, {})
    _, dropped, raw = run_all(graph, store, tokens, TRAIN)
    expected = (
        2.0 * (dropped**2).mean()
        + 3.0 * ((raw[:, 1:] - raw[:, :-1]) ** 2).mean()
        + 0.5 * ((raw.norm(dim=2) - 5) ** 2).mean()
    )
    torch.testing.assert_close(found.loss - plain.loss, expected)
    assert found.mean == plain.mean
    torch.testing.assert_close(task.run(graph, store, window, BATCH, config, {}).loss, plain.loss)


def test_a_bigram_network_learns() -> None:
    data = _data(train_tokens=40_000)
    store = WeightStore(0)
    config = OptimiserConfig(learning_rate=2.0, momentum=0.0, weight_decay=0.0)
    before = score_child(_bigram(), store, data, data.valid, 20)
    epochs = list(train_child(_bigram(), store, data, config, epochs=2, batch_size=20, seed=0))
    after = score_child(_bigram(), store, data, data.valid, 20)
    assert epochs[1].loss < epochs[0].loss
    assert 1 / after < 20 < 1 / before
    assert task_of(data).text(after) == f"{1 / after:.4g}"
    assert task_of(data).text(0.0) == "infinite"


def test_a_text_that_is_too_short_is_refused_before_anything_runs() -> None:
    data = _data(train_tokens=60)
    with pytest.raises(UserInputError, match="less than one window"):
        LanguageModel().epoch(data, 20, seed=0)


def test_nothing_to_score_on_is_an_error() -> None:
    with pytest.raises(TrialFailed):
        evaluate(_bigram(), WeightStore(0), [], EVAL, LanguageModel())


def test_the_exponential_schedule_is_the_published_one() -> None:
    config = OptimiserConfig(schedule="exponential", learning_rate=20.0, decay=0.96, decay_from=15)
    assert [learning_rate(config, epoch, 150) for epoch in (0, 14.9)] == [20.0, 20.0]
    assert learning_rate(config, 15.0, 150) == pytest.approx(20 * 0.96)
    assert learning_rate(config, 17.5, 150) == pytest.approx(20 * 0.96**3)


def test_training_ends_with_the_mean_of_the_weights_after_each_late_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = _data(train_tokens=200)
    seen: list[torch.Tensor] = []
    step = Trainer.step

    def spy(self: Trainer, graphs: object, batch: object, epoch: float, mode: object) -> object:
        found = step(self, graphs, batch, epoch, mode)  # type: ignore[arg-type]
        if epoch >= 1:
            seen.append(self.store["decoder/weight"].detach().clone())
        return found

    monkeypatch.setattr(Trainer, "step", spy)
    config = SGD.model_copy(update={"average_from": 1})
    store = WeightStore(0)
    list(train_child(_bigram(), store, data, config, epochs=3, batch_size=4, seed=0))
    assert len(seen) == 2 * task_of(data).steps(data, 4)
    torch.testing.assert_close(store["decoder/weight"].detach(), torch.stack(seen).mean(0))


def test_shared_weights_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="average_from"):
        SearchOptimiserConfig(average_from=3)
