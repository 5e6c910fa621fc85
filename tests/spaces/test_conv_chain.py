import random

import pytest
from pydantic import ValidationError

from hwnas.graph import GraphBuilder
from hwnas.registry import PluginConfig
from hwnas.spaces import SearchSpace
from hwnas.spaces.conv_chain import ConvChain
from hwnas.testing.spaces import SpaceSuite


class TestConvChain(SpaceSuite):
    make = staticmethod(lambda: ConvChain(ConvChain.Config(), (1, 8, 8), 10))
    make_small = staticmethod(
        lambda: ConvChain(ConvChain.Config(max_depth=3, max_width=32), (1, 8, 8), 10)
    )

    def test_its_decisions_depend_on_the_depth(self):
        with pytest.raises(Exception, match="no fixed list of decisions"):
            self.make().decisions()


@pytest.mark.parametrize(
    "mistake", [{"ops": ("convv",)}, {"min_depth": 9}, {"kernels": (4,)}, {"kernel": (3,)}]
)
def test_settings_that_make_no_space_are_refused(mistake):
    with pytest.raises(ValidationError):
        ConvChain.Config(**mistake)


class OptionsFollow(SearchSpace):
    """A decision keeps its name but offers other options."""

    def build(self, pick):
        op = pick.one_of("op", ("a", "b"))
        kernel = pick.one_of("kernel", (1, 3) if op == "a" else (5, 7))
        g = GraphBuilder(self.input_shape)
        x = g.conv(g.input, channels=2, kernel=kernel, weights=f"conv{kernel}")
        return g.finish(g.classifier(x, classes=self.classes, weights="head"))


def test_a_neighbour_answers_anew_what_no_longer_fits():
    space, rng = OptionsFollow(PluginConfig(), (1, 8, 8), 2), random.Random(0)
    for _ in range(50):
        parent = space.sample(rng)
        assert space.neighbour(parent, rng) != parent


def test_options_that_are_named_twice_are_refused():
    with pytest.raises(ValidationError, match="twice"):
        ConvChain.Config(kernels=(3, 3))
