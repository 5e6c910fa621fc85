"""A given network and its changes: what is offered, and what comes out."""

import random

import pytest
from pydantic import ValidationError

from hwnas.errors import UserInputError
from hwnas.graph import Architecture, GraphBuilder
from hwnas.graph.transform import KINDS, Transformed
from hwnas.spaces import SPACES
from hwnas.spaces.conv_chain import ConvChain
from hwnas.spaces.transform import Transform
from hwnas.testing.spaces import SpaceSuite


def small(**settings):
    picks = {"width": 4, "depth": 1, "layer0/op": "sep_conv", "layer0/kernel": 3}
    base = {
        "settings": {"min_depth": 1, "min_width": 4, "width_step": 4, "halve_after": [1]},
        "architecture": picks,
    }
    return Transform(Transform.Config(base=base, **settings), (1, 8, 8), 10)


class TestTransform(SpaceSuite):
    make = staticmethod(lambda: Transform(Transform.Config(), (1, 8, 8), 10))
    make_small = staticmethod(lambda: small(steps=2))

    def test_a_neighbour_differs_in_one_answer_that_both_have(self):
        """What is offered depends on earlier steps: other answers change if they must."""
        space, rng = self.make(), random.Random(1)
        for _ in range(20):
            parent = space.sample(rng)
            child = space.neighbour(parent, rng)
            decisions = {each.name: each for each in space.decisions_of(child.replay())}
            changed = [
                name
                for name in parent
                if name in child
                and parent[name] != child[name]
                and parent[name] in decisions[name].options
            ]
            assert len(changed) == 1


def transformed(graph_of):
    g = GraphBuilder((3, 8, 8))
    return Transformed.base(g.finish(g.classifier(graph_of(g), classes=4, weights="head")))


def layers(network):
    return {node.weights: node.shape[0] for node in network.graph.nodes if node.weights}


def test_without_a_change_it_is_the_given_network():
    space = small()
    chain = ConvChain.Config(**space.config.base.settings)
    picks = Architecture(space.config.base.architecture)
    wanted = ConvChain(chain, (1, 8, 8), 10).graph(picks)
    assert space.graph(Architecture({"step0/action": "stop"})) == wanted


def test_both_sides_of_a_sum_and_a_depthwise_convolution_are_scaled_together():
    def block(g):
        x = g.conv(g.input, channels=4, weights="in")
        y = g.conv(g.conv(x, channels=6, weights="up"), channels=6, groups=6, weights="dw")
        return g.sum(x, g.conv(g.relu(y), channels=4, weights="down"))

    base = transformed(block)
    assert base.scalable() == {"in": 4, "up": 6}
    found = layers(base.scaled("in", 5).scaled("up", 9))
    wanted = {"in~3to5": 5, "up~5to9": 9, "dw~9to9": 9, "down~9to5": 5, "head~5to4": 4}
    assert found == wanted
    assert layers(base.scaled("in", 5).scaled("in", 4)) == layers(base)


def test_layers_that_share_their_weights_stay_alike():
    def twice(g):
        x = g.conv_bn(g.input, channels=4, weights="in")
        return g.conv_bn(g.conv_bn(x, channels=4, weights="loop"), channels=4, weights="loop")

    base = transformed(twice)
    assert base.scalable() == {"in": 4}
    assert set(layers(base.scaled("in", 6))) == {"in~3to6", "loop~6to6", "head~6to4"}
    assert set(base.insertable()) == {"in"}
    assert base.removable() == ()


def test_what_an_unknown_op_reads_keeps_its_size():
    def shifted(g):
        x = g.conv(g.input, channels=4, weights="a")
        return g.conv(g.shift(g.conv(x, channels=4, weights="b")), channels=4, weights="c")

    assert set(transformed(shifted).scalable()) == {"a", "c"}


def test_a_layer_is_inserted_where_it_can_change_nothing():
    def chain(g):
        x = g.conv(g.input, channels=4, weights="a")
        x = g.relu(g.batch_norm(x, weights="norm"))
        x = g.conv_bn(x, channels=4, weights="b")  # nothing rectifies behind it, but before
        x = g.tanh(x)
        return g.swish(g.conv(x, channels=5, weights="c"))

    base = transformed(chain)
    assert base.insertable() == {"a": KINDS, "b": KINDS, "c": ("conv3", "conv1")}

    def kinds(layer):
        nodes = base.inserted(layer, "conv1", 0).graph.nodes
        (place,) = [i for i, node in enumerate(nodes) if "+0conv1" in node.weights]
        return [node.op.kind for node in nodes][place - 1 : place + 2], nodes[place].op.relu

    assert kinds("a") == (["relu", "conv_bn", "conv_bn"], "after")
    assert kinds("b") == (["relu", "conv_bn", "conv_bn"], "after")
    assert kinds("c") == (["conv", "conv_bn", "swish"], "none")


def test_a_removed_layer_takes_its_norm_along():
    def chain(g):
        x = g.conv(g.input, channels=4, weights="a")
        x = g.relu(g.batch_norm(g.conv(x, channels=4, weights="b"), weights="norm"))
        return g.conv(x, channels=5, weights="c")

    base = transformed(chain)
    assert base.removable() == ("b",)
    assert list(layers(base.removed("b"))) == ["a", "c", "head"]
    inserted = base.inserted("b", "conv3", 0)
    assert inserted.removable() == ("b",)  # not what a step has just put there


def test_factors_that_change_nothing_are_not_offered():
    space = small(divisor=4, factors=(0.5, 0.9, 1.6, 1.9, 2.0), actions=("scale",), steps=1)
    decisions = space.decisions_of(
        Architecture(
            {"step0/action": "scale", "step0/layer": "width4/stem", "step0/factor": 1.6}
        ).replay()
    )
    assert decisions[-1].options == (1.6,)  # 0.5 and 0.9: 4 again; 1.9 and 2: 8, as 1.6
    assert decisions[0].options == ("stop", "scale")


def test_a_published_network_brings_its_settings():
    base = {"space": "mobile", "architecture": "published:mobilenet_v2"}
    space = Transform(Transform.Config(base=base), (3, 32, 32), 10)
    published = SPACES.get("mobile").published()["mobilenet_v2"]
    plain = SPACES.get("mobile")
    wanted = plain(plain.Config(**published.settings), (3, 32, 32), 10)
    found = space.graph(Architecture({"step0/action": "stop"}))
    assert found.expanded() == wanted.graph(published.architecture).expanded()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": {"space": "mobil"}}, "unknown space 'mobil'"),
        ({"base": {"settings": {"min_depth": 0}}}, "settings.min_depth"),
        ({"base": {"onnx": "net.onnx", "space": "mobile"}}, "space and onnx are two networks"),
        ({"factors": (1.5, 1.5)}, "twice"),
        ({"factors": (0.0,)}, "positive"),
        ({"actions": ()}, "at least 1"),
        ({"steps": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_space_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Transform.Config(**settings)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"architecture": "published:nothing"}, "publishes no network"),
        ({"architecture": "missing.json"}, "cannot be read"),
        ({"architecture": {"width": 5}}, "width"),
        ({"space": "enas_rnn", "architecture": {}}, "text"),
    ],
)
def test_a_base_that_is_none_is_refused(base, message):
    with pytest.raises(UserInputError, match=message):
        _ = Transform(Transform.Config(base=base), (1, 8, 8), 10).base


def test_a_space_that_is_too_large_to_count_is_estimated(monkeypatch):
    space = small(steps=3)
    exact = space.size()
    monkeypatch.setattr("hwnas.spaces.transform._COUNTED", 10)
    estimate = space.size()
    assert estimate == int(float(f"{estimate:.1e}"))
    assert 0.9 * exact < estimate < 1.1 * exact
