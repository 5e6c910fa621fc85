"""Published networks, rebuilt from their published strings, have the published figures."""

from __future__ import annotations

import pytest

from hwnas.graph import Graph
from hwnas.graph.counts import macs, params
from hwnas.spaces import SPACES, Published, SearchSpace, Stated

CASES = [(space, name) for space in SPACES.names() for name in SPACES.get(space).published()]


def _published(space: str, name: str) -> tuple[Published, Graph]:
    plugin = SPACES.get(space)
    found = plugin.published()[name]
    config = plugin.Config.model_validate(dict(found.settings))
    made: SearchSpace = plugin(config, found.input_shape, found.classes)
    return found, made.graph(found.architecture)


@pytest.mark.parametrize(("space", "name"), CASES)
def test_counts_are_the_published_ones(space: str, name: str) -> None:
    """Parameters and multiply-accumulates round to what the source says, or it is explained."""
    found, graph = _published(space, name)
    holds = [
        stated.holds(count(graph))
        for stated, count in ((found.params, params), (found.macs, macs))
        if stated is not None
    ]
    assert holds, "no figure is published: nothing is checked"
    assert all(holds) != bool(found.difference), (params(graph), macs(graph), found.difference)


def test_a_figure_holds_within_its_last_digit() -> None:
    assert Stated(3.3e6, 0.05e6).holds(3_349_342)
    assert not Stated(3.3e6, 0.05e6).holds(3_351_000)
    assert Stated(2_694_282).holds(2_694_282)
    assert not Stated(2_694_282).holds(2_694_283)
