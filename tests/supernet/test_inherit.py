"""Weights that a changed network takes over: what Net2Net promises, and what it does not."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.graph import BATCH, EVAL, GraphBuilder
from hwnas.graph.transform import KINDS, Transformed
from hwnas.spaces import SPACES
from hwnas.spaces.transform import Transform
from hwnas.supernet.inherit import inherit
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore
from hwnas.testing.spaces import example_input

MOBILE = {
    "space": "mobile",
    "settings": {
        "stem": 4,
        "stem_stride": 1,
        "features": 8,
        "squeezes": [0.5],
        "activation": "relu6",
        "kernels": [3],
        "expansions": [3],
        "zero": False,
        "stages": [{"channels": 4, "blocks": 1}, {"channels": 8, "blocks": 2, "stride": 2}],
    },
    "architecture": {},
}
CHAIN = {
    "settings": {"min_width": 4, "width_step": 4},
    "architecture": {
        "width": 4,
        "depth": 3,
        "layer0/op": "conv",
        "layer0/kernel": 3,
        "layer1/op": "sep_conv",
        "layer1/kernel": 3,
        "layer2/op": "conv",
        "layer2/kernel": 3,
    },
}


def branches():
    """Two layers side by side, joined; a depthwise one; a head that rectifies."""
    g = GraphBuilder((2, 6, 6))
    x = g.conv_bn(g.input, channels=4, kernel=3, relu="after", weights="stem")
    left = g.conv_bn(x, channels=3, kernel=1, relu="after", weights="left")
    right = g.max_pool(g.conv_bn(x, channels=5, kernel=3, weights="right"), kernel=3)
    y = g.concat(left, right)
    y = g.conv(y, channels=8, kernel=3, groups=8, weights="depthwise")
    y = g.swish(g.batch_norm(y, weights="norm"))
    y = g.conv(y, channels=6, bias=True, weights="mix")
    y = g.concat(y, x)
    return g.finish(g.classifier(y, classes=3, relu=True, weights="head"))


def trained(graph, seed=0, dtype=torch.float32):
    """Return weights with statistics and shifts that are not those of a fresh network."""
    store, generator = WeightStore(seed, dtype), torch.Generator().manual_seed(seed)
    state = {}
    for name, spec in graph.weight_specs().items():
        value = store.get(name, spec).detach().clone()
        if value.ndim == 1:
            value += torch.rand(value.shape, generator=generator)
        state[name] = value
    store.load(state)
    return store


def difference(parent, child, mode=EVAL, dtype=torch.float32):
    store = trained(parent, dtype=dtype)
    before = {name: value.clone() for name, value in store.state().items()}
    own = inherit(parent, child, store)
    assert all(torch.equal(value, before[name]) for name, value in store.state().items())
    assert set(own) == set(child.weight_specs())
    x = example_input(child, 3).to(dtype)
    wanted, found = run(parent, store, x, mode), run(child, own, x, mode)
    return ((wanted - found).abs().max() / wanted.abs().max().clamp_min(1)).item()


def spaces():
    found = {"branches": Transformed.base(branches())}
    for name, base in (("chain", CHAIN), ("mobile", MOBILE)):
        space = Transform(Transform.Config(base=base), (1, 8, 8), 5)
        found[name] = space.base
    return found


BASES = spaces()
EACH = pytest.mark.parametrize("base", BASES.values(), ids=BASES.keys())


@EACH
def test_a_wider_layer_changes_no_output(base):
    for layer, channels in base.scalable().items():
        wider = base.scaled(layer, channels + 3).graph
        assert wider != base.graph
        assert difference(base.graph, wider) < 1e-5


@EACH
def test_a_wider_layer_changes_no_output_with_the_batchs_statistics_either(base):
    for layer, channels in base.scalable().items():
        assert difference(base.graph, base.scaled(layer, 2 * channels).graph, BATCH) < 1e-4


@EACH
def test_an_inserted_layer_changes_no_output(base):
    assert base.insertable()
    for layer, kinds in base.insertable().items():
        for kind in kinds:
            deeper = base.inserted(layer, kind, 0).graph
            assert len(deeper.nodes) == len(base.graph.nodes) + 1
            assert difference(base.graph, deeper) < 1e-5


@EACH
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_many_such_changes_change_no_output(base, seed):
    rng, network = random.Random(seed), base
    for step in range(4):
        if rng.random() < 0.5:
            layer, channels = rng.choice(list(network.scalable().items()))
            network = network.scaled(layer, channels + rng.randint(1, 4))
        else:
            layer, kinds = rng.choice(list(network.insertable().items()))
            network = network.inserted(layer, rng.choice(kinds), step)
    assert difference(base.graph, network.graph) < 1e-5


@EACH
def test_what_is_left_of_a_difference_is_rounding(base):
    """Net2Net's equations hold exactly: in float64 the outputs agree to 1e-12."""
    network = base
    for step, layer in enumerate(list(base.insertable())[:3]):
        network = network.inserted(layer, network.insertable()[layer][-1], step)
    for layer, channels in network.scalable().items():
        network = network.scaled(layer, channels + 2)
    assert difference(base.graph, network.graph, dtype=torch.float64) < 1e-12


def test_one_change_after_the_other_is_inherited_too():
    first = BASES["chain"].inserted("width4/stem", "conv3", 0)
    second = first.scaled("width4/stem", 7)
    assert difference(first.graph, second.graph) < 1e-5


def test_the_layer_that_is_inserted_is_not_left_as_it_was_created():
    """The comparison above can fail: with fresh weights the outputs differ."""
    base = BASES["chain"]
    child = base.inserted("width4/stem", "conv3", 0).graph
    store = trained(base.graph)
    x = example_input(child, 3)
    assert (run(base.graph, store, x) - run(child, store, x)).abs().max() > 1e-3


def test_a_narrower_layer_keeps_the_filters_with_the_largest_norm():
    base = BASES["branches"]
    store = trained(base.graph)
    child = base.scaled("left", 2).graph
    own = inherit(base.graph, child, store)
    norms = store["left/conv/weight"].abs().sum((1, 2, 3))
    kept = norms.topk(2).indices.sort().values
    assert torch.equal(own["left~4to2/conv/weight"], store["left/conv/weight"][kept])
    assert torch.equal(own["left~4to2/bn/mean"], store["left/bn/mean"][kept])
    behind = [*kept.tolist(), *range(3, 8)]
    assert torch.equal(own["mix~7to6/weight"], store["mix/weight"][:, behind])


def test_noise_tells_copies_apart_and_nothing_else():
    base = BASES["branches"]
    store = trained(base.graph)
    child = base.scaled("left", 5).graph
    exact, noisy = (inherit(base.graph, child, store, noise=each) for each in (0.0, 0.01))
    name = "left~4to5/conv/weight"
    changed = (exact[name] != noisy[name]).flatten(1).any(1)
    assert changed.tolist() == [False] * 3 + [True] * 2
    off = (noisy[name] - exact[name])[3:].std() / store["left/conv/weight"].std()
    assert 0.003 < off < 0.03
    others = {each for each in exact if not torch.equal(exact[each], noisy[each])}
    assert others == {name, "depthwise~10to10/weight"}  # which filters the copies, too


def test_what_is_left_after_a_removal_is_copied():
    base = BASES["chain"]
    store = trained(base.graph)
    child = base.removed("width4/layer0/conv3").graph
    own = inherit(base.graph, child, store)
    assert len(child.nodes) == len(base.graph.nodes) - 2  # the layer, and the sum with its input
    assert all(torch.equal(own[name], store[name]) for name in own)
    assert set(own) < set(store)


@EACH
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_any_changes_give_weights_that_run(base, seed):
    rng, network = random.Random(seed), base
    for step in range(4):
        action = rng.choice(["scale", "insert", "remove"])
        if action == "scale":
            layer, channels = rng.choice(list(network.scalable().items()))
            network = network.scaled(layer, rng.randint(2, 2 * channels))
        elif action == "insert":
            network = network.inserted(
                *rng.choice(
                    [
                        (layer, kind)
                        for layer, kinds in network.insertable().items()
                        for kind in kinds
                    ]
                ),
                step,
            )
        elif network.removable():
            network = network.removed(rng.choice(network.removable()))
    assert difference(base.graph, network.graph) < float("inf")


def test_all_kinds_are_inserted_somewhere():
    offered = [kinds for base in BASES.values() for kinds in base.insertable().values()]
    assert {kind for kinds in offered for kind in kinds} == set(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in SPACES.names()
        if SPACES.get(name).task == "classification" and name != "transform"
    ],
)
def test_networks_of_every_space_grow_without_a_change_of_their_outputs(name):
    """1e-4 of the largest logit: more than a hundred layers round in float32."""
    kind, rng = SPACES.get(name), random.Random(1)
    space = kind(kind.Config(), (3, 32, 32), 10)
    base = network = Transformed.base(space.graph(space.sample(rng)))
    for step in range(3):
        layer, channels = rng.choice(list(network.scalable().items()))
        network = network.scaled(layer, int(1.5 * channels) + 1)
        layer, kinds = rng.choice(list(network.insertable().items()))
        network = network.inserted(layer, rng.choice(kinds), step)
    assert difference(base.graph, network.graph) < 1e-4
