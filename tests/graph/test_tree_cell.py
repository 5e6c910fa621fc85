import numpy as np
import pytest
import torch

from hwnas.errors import ShapeError
from hwnas.export.onnx import to_onnx
from hwnas.export.verify import parity
from hwnas.graph import EVAL, GraphBuilder
from hwnas.graph.counts import params
from hwnas.graph.ops.tree_cell import NAS_CELL, TreeCell
from hwnas.supernet.run import run, run_all
from hwnas.supernet.weights import WeightStore

TWO = {
    "combine": ("add", "elem_mult", "elem_mult"),
    "activations": ("tanh", "relu", "sigmoid"),
    "inject_at": 0,
    "inject_combine": "add",
    "inject_activation": "relu",
    "cell_at": 1,
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def states(cell, x, before=None):
    """Return h and c after each step, and the weights W and U of each leaf."""
    g = GraphBuilder(x.shape[1:])
    inputs = [g.input]
    if before is not None:
        inputs.append(g.carried(g.input, name="state", size=before.shape[1:]))
    graph, store = g.finish(g.tree_cell(*inputs, **cell, weights="cell")), WeightStore(0)
    carried = {} if before is None else {"state": torch.from_numpy(before)}
    (found,) = run_all(graph, store, torch.from_numpy(x), EVAL, carried)
    w, u = (
        np.split(store.state()[f"cell/{name}"].numpy(), (len(cell["combine"]) + 1) // 2)
        for name in ("input", "hidden")
    )
    return np.split(found.detach().numpy(), 2, axis=2), w, u


def test_the_papers_example_with_two_leaves():
    """Section 3.4 and figure 5: the equations of the example, one by one."""
    x = np.random.default_rng(0).normal(size=(2, 4, 5)).astype(np.float32)
    (hs, cs), w, u = states({"hidden": 3, **TWO}, x)
    h = c = np.zeros((2, 3), np.float32)
    for t in range(4):
        a0 = np.tanh(x[:, t] @ w[0].T + h @ u[0].T)
        a1 = np.maximum((x[:, t] @ w[1].T) * (h @ u[1].T), 0)
        a0 = np.maximum(a0 + c, 0)
        c = (x[:, t] @ w[1].T) * (h @ u[1].T)
        h = sigmoid(a0 * a1)
        np.testing.assert_allclose(hs[:, t], h, atol=1e-6)
        np.testing.assert_allclose(cs[:, t], c, atol=1e-6)


def test_the_found_cell_computes_what_tensorflows_does():
    """The layers of `NASCell.call`, from a state that is not zero."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 3, 4)).astype(np.float32)
    before = rng.normal(size=(2, 10)).astype(np.float32)
    (hs, cs), w, u = states({"hidden": 5, **NAS_CELL}, x, before)
    h, c = np.split(before, 2, axis=1)
    for t in range(3):
        i = [x[:, t] @ each.T for each in w]
        m = [h @ each.T for each in u]
        one = [
            sigmoid(i[0] + m[0]), np.maximum(i[1] + m[1], 0), sigmoid(i[2] + m[2]),
            np.maximum(i[3] * m[3], 0), np.tanh(i[4] + m[4]), sigmoid(i[5] + m[5]),
            np.tanh(i[6] + m[6]), sigmoid(i[7] + m[7]),
        ]  # fmt: skip
        two = [
            np.tanh(np.tanh(one[0] * one[1]) + c), np.tanh(one[2] + one[3]),
            np.tanh(one[4] * one[5]), sigmoid(one[6] + one[7]),
        ]  # fmt: skip
        c = two[0] * two[1]
        h = np.tanh(c * np.tanh(two[2] + two[3]))
        np.testing.assert_allclose(hs[:, t], h, atol=1e-6)
        np.testing.assert_allclose(cs[:, t], c, atol=1e-6)


def test_the_found_cell_has_the_parameters_of_tensorflows():
    """`kernel` [E, 8 H] and `recurrent_kernel` [H, 8 H]; the tree itself has none."""
    g = GraphBuilder((3, 7))
    assert params(g.finish(g.tree_cell(g.input, hidden=5, **NAS_CELL, weights="cell"))) == 480


def test_a_state_that_is_handed_on_goes_on():
    x = torch.randn(2, 6, 4)
    cell = {"hidden": 3, **TWO}
    g = GraphBuilder((3, 4))
    state = g.carried(g.input, name="state", size=(6,))
    half, store = g.finish(g.tree_cell(g.input, state, **cell, weights="cell")), WeightStore(0)
    g = GraphBuilder((6, 4))
    whole = run(g.finish(g.tree_cell(g.input, **cell, weights="cell")), store, x)
    (first,) = run_all(half, store, x[:, :3])
    (second,) = run_all(half, store, x[:, 3:], EVAL, {"state": first[:, -1]})
    torch.testing.assert_close(torch.cat([first, second], 1), whole)


@pytest.mark.parametrize(
    "wrong",
    [
        {"combine": ("add",) * 5, "activations": ("tanh",) * 5},
        {"combine": ("add",) * 2},
        {"activations": ("tanh",) * 2},
        {"combine": ("add", "add", "minus")},
        {"activations": ("tanh", "tanh", "gelu")},
        {"inject_combine": "minus"},
        {"inject_activation": "gelu"},
        {"inject_at": 3},
        {"cell_at": -1},
    ],
)
def test_an_impossible_cell_is_refused(wrong):
    with pytest.raises(ShapeError):
        TreeCell(**({"hidden": 3, **TWO} | wrong)).shape([(4, 5)])


def test_a_state_of_another_size_is_refused():
    with pytest.raises(ShapeError, match="h and c"):
        TreeCell(hidden=3, **TWO).shape([(4, 5), (3,)])


def test_an_embedding_is_the_rows_of_its_tokens():
    """In PyTorch, and in ONNX Runtime; only the rows that were looked up get a gradient."""
    g = GraphBuilder((4,), dtype="int64")
    graph = g.finish(g.embedding(g.input, vocabulary=5, width=3, weights="embedding"))
    store, tokens = WeightStore(0), torch.tensor([[1, 3, 3, 0], [0, 1, 1, 1]])
    weight = store.trainable(graph)["embedding/weight"]
    found = run(graph, store, tokens)
    torch.testing.assert_close(found, weight[tokens])
    assert params(graph) == 5 * 3
    found.sum().backward()
    assert weight.grad[:, 0].tolist() == [2.0, 4.0, 0.0, 2.0, 0.0]
    weights = {name: value.numpy() for name, value in store.state().items()}

    def reference(x):
        return run(graph, store, torch.from_numpy(x)).detach().numpy()

    assert parity(to_onnx(graph, weights), reference, tokens.numpy()).holds
