import math
import random

import pytest
import torch
from sklearn.datasets import load_digits

from hwnas.errors import HwnasError, TrialFailed
from hwnas.graph import BATCH, EVAL, TRAIN, TRAIN_SHARED, GraphBuilder
from hwnas.spaces.conv_chain import ConvChain
from hwnas.supernet.config import OptimiserConfig
from hwnas.supernet.run import run
from hwnas.supernet.train import Trainer, evaluate, learning_rate, recalibrate
from hwnas.supernet.weights import WeightStore


def digits():
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return (x - x.mean()) / x.std(), torch.tensor(y)


def linear_graph():
    g = GraphBuilder((1, 4, 4))
    x = g.conv(g.input, channels=3, kernel=3, weights="conv")
    return g.finish(g.classifier(x, classes=4, weights="head"))


def test_steps_are_those_of_torchs_sgd():
    """Nesterov, weight decay and clipping, against torch.optim on the same weights."""
    config = OptimiserConfig(learning_rate=0.3, final_learning_rate=0.3, clip_norm=0.05)
    graph, store, twin = linear_graph(), WeightStore(0), WeightStore(0)
    trainer = Trainer(store, config, epochs=1)
    parameters = list(twin.trainable(graph).values())
    optimiser = torch.optim.SGD(parameters, 0.3, momentum=0.9, weight_decay=1e-4, nesterov=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        x = torch.randn(8, 1, 4, 4, generator=generator)
        y = torch.randint(0, 4, (8,), generator=generator)
        result = trainer.step([graph], (x, y), 0.0, TRAIN)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(run(graph, twin, x, TRAIN), y).backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 0.05)
        assert result.gradient_norm == pytest.approx(float(norm))
        assert float(norm) > 0.05, "the test must clip"
        optimiser.step()
    for name, value in store.state().items():
        torch.testing.assert_close(value, twin[name].detach(), rtol=0, atol=0)


def test_children_of_one_step_share_its_gradient():
    """Two equal children move the weights as one does: losses are averaged."""
    x, y = torch.randn(8, 1, 4, 4), torch.randint(0, 4, (8,))
    stores = []
    for copies in (1, 2):
        store = WeightStore(0)
        Trainer(store, OptimiserConfig(), 1).step([linear_graph()] * copies, (x, y), 0, TRAIN)
        stores.append(store.state())
    for name in stores[0]:
        torch.testing.assert_close(stores[0][name], stores[1][name])


def test_weights_that_no_child_used_stay():
    space = ConvChain(ConvChain.Config(), (1, 8, 8), 10)
    rng, store = random.Random(0), WeightStore(0)
    graphs = [space.graph(space.sample(rng)) for _ in range(6)]
    for graph in graphs:
        store.trainable(graph)
    before = {name: value.clone() for name, value in store.state().items()}
    trainer = Trainer(store, OptimiserConfig(), 1)
    trainer.step([graphs[0]], (torch.randn(4, 1, 8, 8), torch.arange(4)), 0, TRAIN_SHARED)
    moved = {
        name
        for name, value in store.state().items()
        if name in before and not torch.equal(value, before[name])
    }
    assert moved
    assert moved <= set(graphs[0].weight_specs())


def test_a_loss_that_is_not_finite_leaves_the_weights_alone():
    graph, store = linear_graph(), WeightStore(0)
    trainer = Trainer(store, OptimiserConfig(), 1)
    before = {n: v.detach().clone() for n, v in store.trainable(graph).items()}
    with pytest.raises(TrialFailed, match="diverged"):
        trainer.step([graph], (torch.full((2, 1, 4, 4), math.inf), torch.zeros(2).long()), 0, TRAIN)
    for name, value in before.items():
        assert torch.equal(store[name], value)
        assert store[name].grad is None


def test_initial_weights_depend_on_seed_and_name_only():
    space = ConvChain(ConvChain.Config(), (1, 8, 8), 10)
    rng = random.Random(0)
    graphs = [space.graph(space.sample(rng)) for _ in range(10)]
    forward, backward, other = WeightStore(1), WeightStore(1), WeightStore(2)
    for a, b in zip(graphs, reversed(graphs), strict=True):
        forward.trainable(a)
        backward.trainable(b)
        other.trainable(a)
    assert set(forward) == set(backward)
    assert all(torch.equal(forward[name], backward[name]) for name in forward)
    assert any(not torch.equal(forward[name], other[name]) for name in forward)


def test_a_store_that_was_saved_and_loaded_trains_on_bit_by_bit():
    graph = linear_graph()
    batch = (torch.randn(8, 1, 4, 4), torch.randint(0, 4, (8,)))
    a = Trainer(WeightStore(0), OptimiserConfig(), 10)
    a.step([graph], batch, 0.0, TRAIN)
    b = Trainer(WeightStore(0), OptimiserConfig(), 10)
    b.store.load(a.store.state())
    b.optimiser.load(a.optimiser.state())
    for trainer in (a, b):
        trainer.step([graph], batch, 0.1, TRAIN)
    assert all(torch.equal(a.store[name], b.store[name]) for name in a.store)


def test_children_that_disagree_on_a_shape_are_refused():
    store = WeightStore(0)
    store.trainable(linear_graph())
    g = GraphBuilder((2, 4, 4))
    other = g.finish(g.conv(g.input, channels=3, kernel=3, weights="conv"))
    with pytest.raises(HwnasError, match="children that share a name"):
        store.trainable(other)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 0.05), (5, (0.05 + 0.0005) / 2), (9.9999, 0.0005), (10, 0.05), (20, 0.02525), (30, 0.05)],
)
def test_the_cosine_restarts_after_10_and_30_epochs(epoch, expected):
    config = OptimiserConfig(first_period=10, period_multiplier=2)
    assert learning_rate(config, epoch, 150) == pytest.approx(expected, abs=1e-6)


def test_warm_up_is_linear_and_the_end_is_the_lowest_rate():
    config = OptimiserConfig(warmup_epochs=5)
    assert learning_rate(config, 2.5, 20) == pytest.approx(0.025)
    assert learning_rate(config, 5, 20) == pytest.approx(0.05)
    assert learning_rate(config, 20, 20) == pytest.approx(0.0005)


def test_recalibrated_statistics_are_the_mean_over_the_batches():
    g = GraphBuilder((2, 4, 4))
    graph = g.finish(g.batch_norm(g.input, weights="bn"))
    batches = [(torch.randn(16, 2, 4, 4) + i, torch.zeros(16)) for i in range(4)]
    shared = WeightStore(0)
    child = recalibrate(graph, shared, batches)
    expected = torch.stack([x.mean(dim=(0, 2, 3)) for x, _ in batches]).mean(0)
    torch.testing.assert_close(child["bn/mean"], expected)
    assert torch.equal(shared["bn/mean"], torch.zeros(2)), "shared weights are copied"


def test_a_supernet_learns_digits_and_recalibration_keeps_its_accuracy():
    """A short supernet training; BATCH and recalibrated EVAL agree within a few per cent."""
    x, y = digits()
    space = ConvChain(ConvChain.Config(max_depth=3, max_width=16), (1, 8, 8), 10)
    store, rng = WeightStore(0), random.Random(0)
    trainer = Trainer(store, OptimiserConfig(learning_rate=0.2), epochs=8)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(8):
        order = torch.randperm(1400, generator=generator)
        for step, rows in enumerate(order.split(64)):
            graph = space.graph(space.sample(rng))
            trainer.step([graph], (x[rows], y[rows]), epoch + step / 22, TRAIN_SHARED)
    graph = space.graph(space.sample(rng))
    test = [(x[1400:], y[1400:])]
    by_batch = evaluate(graph, store, test, BATCH)
    train = [(x[i : i + 200], y[i : i + 200]) for i in range(0, 1400, 200)]
    recalibrated = evaluate(graph, recalibrate(graph, store, train), test, EVAL)
    assert by_batch > 0.8
    assert abs(by_batch - recalibrated) < 0.05
