import random

import numpy as np
import onnx
import pytest
import torch

from hwnas.errors import DeviceError, HwnasError
from hwnas.export.onnx import to_onnx
from hwnas.export.verify import parity
from hwnas.graph import EVAL, TRAIN
from hwnas.spaces.enas_micro import EnasMicro
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore


@pytest.fixture(scope="module")
def child():
    """A sampled child whose running statistics are not the initial ones."""
    space = EnasMicro(EnasMicro.Config(layers=3, channels=4), (3, 16, 16), 10)
    graph, store = space.graph(space.sample(random.Random(5))), WeightStore(0)
    for seed in range(3):
        run(
            graph,
            store,
            torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(seed)),
            TRAIN,
        )
    return graph, store


def numpy_weights(store):
    return {name: value.numpy() for name, value in store.state().items()}


def reference(graph, store):
    return lambda x: run(graph, store, torch.from_numpy(x), EVAL).detach().numpy()


@pytest.mark.parametrize("batch", [1, 4, 0])
def test_the_file_computes_what_pytorch_computes(child, batch):
    graph, store = child
    model = to_onnx(graph, numpy_weights(store), batch=batch)
    onnx.checker.check_model(model, full_check=True)
    images = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
    result = parity(model, reference(graph, store), images)
    assert result.holds
    assert result.same_class == 1.0
    assert result.samples == 8


def test_a_difference_is_noticed(child):
    graph, store = child
    weights = numpy_weights(store)
    weights["head/linear/bias"] = weights["head/linear/bias"] + 0.01
    images = np.zeros((1, 3, 16, 16), np.float32)
    result = parity(to_onnx(graph, weights), reference(graph, store), images)
    assert not result.holds
    assert result.max_abs_difference == pytest.approx(0.01, rel=1e-3)


def test_nodes_are_named_after_the_expanded_graph(child):
    graph, _ = child
    model = to_onnx(graph)
    names = {node.name.split(".")[0] for node in model.graph.node}
    written = {
        f"n{i}"
        for i, n in enumerate(graph.expanded().nodes)
        if n.op.kind not in ("input", "dropout")
    }
    assert names == written
    assert all(node.output[0] in (node.name, "logits") for node in model.graph.node)


def test_without_weights_the_file_is_the_same_each_time(child):
    graph, _ = child
    assert to_onnx(graph).SerializeToString() == to_onnx(graph).SerializeToString()


def test_a_missing_weight_is_named(child):
    graph, store = child
    weights = numpy_weights(store)
    del weights["stem/conv/weight"]
    with pytest.raises(HwnasError, match="'stem/conv/weight' is missing"):
        to_onnx(graph, weights)


def test_values_that_are_not_finite_are_an_error(child):
    graph, store = child
    weights = numpy_weights(store)
    weights["head/linear/bias"] = np.full(10, np.nan, np.float32)
    with pytest.raises(DeviceError, match="not finite"):
        parity(
            to_onnx(graph, weights), reference(graph, store), np.zeros((1, 3, 16, 16), np.float32)
        )
