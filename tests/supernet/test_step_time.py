"""Times of training steps, with a clock that every op moves by what it is told to cost."""

from __future__ import annotations

import json
import math
import random

import pytest

from hwnas.graph import GraphBuilder
from hwnas.spaces.conv_chain import ConvChain
from hwnas.spaces.lstm import LstmStack
from hwnas.supernet import step_time
from hwnas.supernet.step_time import StepTimes, from_json, op_seconds, uses


def chain(*channels, classes=4):
    g = GraphBuilder((3, 8, 8))
    x = g.input
    for place, width in enumerate(channels):
        x = g.conv_bn(x, channels=width, kernel=3, relu="after", weights=f"conv{place}/{width}")
    return g.finish(g.classifier(x, classes=classes, weights=f"head{x.shape[0]}"))


@pytest.fixture
def priced(monkeypatch):
    """A second for every output value of an op; returns how many ops were timed."""
    timed = []

    def seconds(use, batch):
        timed.append(use.key)
        return float(_values(use) * batch)

    monkeypatch.setattr(step_time, "op_seconds", seconds)
    return timed


def test_each_distinct_op_is_timed_once(priced):
    graphs = [chain(4, 4, 4), chain(4, 8), chain(4, 4)]
    times = StepTimes(batch=2)
    # 3→4, 4→4 and its classifier's three ops, 4→8 and three others: what is read is part of an op.
    assert times.measure(graphs) == len(set(priced)) == len(priced)
    assert times.measure(graphs) == 0
    assert len(priced) < sum(len(list(uses(graph))) for graph in graphs)


def test_an_op_that_was_not_timed_is_estimated_from_its_kind(priced):
    times = StepTimes(batch=1)
    times.measure([chain(width, width) for width in (2, 4, 8, 16, 32)])
    asked = len(priced)
    new = chain(24, 24)
    expected = sum(_values(use) for use in uses(new))
    assert times.predict(new) == pytest.approx(expected, rel=0.25)
    assert len(priced) == asked


def _values(use):
    return math.prod(use.node.shape)


def test_before_a_fit_a_step_is_the_sum_over_its_ops(priced):
    times = StepTimes(batch=1)
    times.measure([chain(4, 4, 4)])
    twice, once = times.predict(chain(4, 4, 4)), times.predict(chain(4, 4))
    assert twice - once == pytest.approx(4 * 8 * 8)


def test_the_fit_finds_the_cost_of_ops_weights_and_steps(priced):
    graphs = [chain(*([width] * depth)) for width in (2, 4, 8, 16) for depth in (1, 2, 3, 4)]
    times = StepTimes(batch=1)
    times.measure(graphs)
    plain = [times.predict(graph) for graph in graphs]
    true = [
        1.3 * sum_ + 40 * len(list(uses(graph))) for sum_, graph in zip(plain, graphs, strict=True)
    ]
    times.fit(graphs, true)
    for graph, seconds in zip(graphs, true, strict=True):
        assert times.predict(graph) == pytest.approx(seconds, rel=0.03)
    assert min(times.coefficients) >= 0


def test_what_was_measured_goes_through_json(priced):
    times = StepTimes(batch=2)
    graph = chain(4, 8)
    times.measure([graph])
    seconds = times.predict(graph)
    again = from_json(json.loads(json.dumps(times.to_json())))
    assert again.predict(graph) == seconds


@pytest.mark.parametrize(
    "space",
    [
        ConvChain(ConvChain.Config(), (1, 8, 8), 10),
        LstmStack(LstmStack.Config(hidden=8), (5,), 11),
    ],
    ids=["images", "text"],
)
def test_every_op_of_a_network_can_be_timed_by_itself(space):
    network = space.graph(space.sample(random.Random(0)))
    found = list(uses(network))
    assert found
    for use in found:
        assert op_seconds(use, batch=3) > 0
