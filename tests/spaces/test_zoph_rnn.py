import pytest
import torch
from pydantic import ValidationError

from hwnas.errors import ShapeError, UserInputError
from hwnas.graph import EVAL, TRAIN, GraphBuilder
from hwnas.graph.counts import macs, params
from hwnas.spaces.zoph_rnn import ZophRnn, nas_cell
from hwnas.supernet.run import run, run_all
from hwnas.supernet.weights import WeightStore
from hwnas.testing.spaces import SpaceSuite

WORDS = 10


def space(steps=4, **settings):
    return ZophRnn(ZophRnn.Config(**settings), (steps,), WORDS)


class TestZophRnn(SpaceSuite):
    make = staticmethod(lambda: space(hidden=4))
    make_small = staticmethod(lambda: space(base=2, hidden=2, layers=1))
    make_exported = staticmethod(lambda: space(steps=3, base=4, hidden=3, layers=2))

    def test_size_is_the_number_of_architectures(self):
        """8^4 · 3² = 36,864 are too many to build here: the decisions say how many there are."""
        for base in (2, 4, 8):
            small = space(base=base, hidden=1, layers=1)
            total = 1
            for decision in small.decisions():
                total *= decision.count
            assert small.size() == total


def test_the_published_size_of_the_space():
    """Section 4.2: about 6 · 10^16 architectures with base 8."""
    assert space().size() == 8**16 * 15**2 == pytest.approx(6.3e16, rel=0.01)


def test_the_picks_come_in_the_order_of_figure_5():
    names = [each.name for each in space(base=2, hidden=2).decisions()]
    nodes = [f"node{i}/{part}" for i in range(3) for part in ("combine", "activation")]
    assert names == [*nodes, "inject/combine", "inject/activation", "cell/node", "inject/node"]
    assert names[:2] == list(nas_cell())[:2]


def test_the_cell_that_was_found_is_one_of_the_space():
    rnn = space(hidden=5, embedding=7, layers=2, dropout=0.0)
    graph = rnn.graph(nas_cell())
    # TensorFlow's NASCell: kernel [input, 8 H] and recurrent_kernel [H, 8 H].
    cells = 8 * 5 * (7 + 5) + 8 * 5 * (5 + 5)
    assert params(graph) == WORDS * 7 + cells + WORDS * 5 + WORDS
    assert macs(graph) == 4 * (cells + WORDS * 5)


def test_tied_embeddings_are_one_matrix():
    tied, loose = (params(space(hidden=6, tied=t).graph(nas_cell())) for t in (True, False))
    assert loose - tied == WORDS * 6


def test_windows_that_hand_on_their_state_are_one_sequence():
    half, whole = (space(steps, hidden=4, dropout=0.0).graph(nas_cell()) for steps in (3, 6))
    store = WeightStore(0)
    tokens = torch.randint(0, WORDS, (2, 6), generator=torch.Generator().manual_seed(0))
    expected = run(whole, store, tokens)
    first, *states = run_all(half, store, tokens[:, :3])
    carried = {f"state{layer}": state for layer, state in enumerate(states)}
    second, *_ = run_all(half, store, tokens[:, 3:], EVAL, carried)
    torch.testing.assert_close(torch.cat([first, second], 1), expected)


def test_a_token_sees_none_that_come_after_it():
    graph, store = space(hidden=4).graph(nas_cell()), WeightStore(0)
    tokens = torch.zeros(1, 4, dtype=torch.long)
    other = tokens.clone()
    other[0, 3] = 1
    a, b = run(graph, store, tokens), run(graph, store, other)
    torch.testing.assert_close(a[:, :3], b[:, :3])
    assert not torch.equal(a[:, 3], b[:, 3])


def test_the_found_cell_learns_a_sequence():
    """The next token is the sum of the last two: a cell without memory cannot know it."""
    rnn = space(steps=12, hidden=24, embedding=8, layers=1, dropout=0.0)
    graph, store = rnn.graph(nas_cell()), WeightStore(0)
    weights = list(store.trainable(graph).values())
    adam = torch.optim.Adam(weights, lr=0.02)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(150):
        tokens = torch.randint(0, 3, (32, 13), generator=generator)
        for t in range(2, 13):
            tokens[:, t] = (tokens[:, t - 1] + tokens[:, t - 2]) % 3
        logits = run(graph, store, tokens[:, :12], TRAIN)
        loss = torch.nn.functional.cross_entropy(
            logits[:, 1:].reshape(-1, WORDS), tokens[:, 2:].reshape(-1)
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[0] > 1.0
    assert losses[-1] < 0.2


def test_images_are_refused():
    with pytest.raises(UserInputError, match="for text"):
        ZophRnn(ZophRnn.Config(), (3, 32, 32), 10)


def test_an_embedding_takes_tokens_only():
    g = GraphBuilder((3, 2))
    with pytest.raises(ShapeError, match="tokens"):
        g.embedding(g.input, vocabulary=4, width=2, weights="embedding")


@pytest.mark.parametrize("wrong", [{"base": 6}, {"tied": True, "embedding": 3}, {"hidden": 0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        ZophRnn.Config(**wrong)
