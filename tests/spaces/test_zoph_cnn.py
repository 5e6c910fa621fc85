import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hwnas.errors import ShapeError
from hwnas.graph import BATCH, Architecture, Graph, GraphBuilder, Value
from hwnas.graph.ops.pad_to import PadTo
from hwnas.spaces.zoph_cnn import ZophCnn, join
from hwnas.strategies import UNTOLD_IDS, Scored
from hwnas.strategies.enas import Enas
from hwnas.strategies.random import Random
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore
from hwnas.testing.spaces import SpaceSuite

STRIDED = {"strides": (1, 2, 3), "filters": (2, 3), "min_depth": 2, "max_depth": 6}


def space(image=(3, 12, 9), **settings_):
    return ZophCnn(ZophCnn.Config(**settings_), image, 10)


class TestZophCnn(SpaceSuite):
    make = staticmethod(lambda: space(min_depth=4, max_depth=6, filters=(2, 3)))
    make_small = staticmethod(
        lambda: space(
            min_depth=1, max_depth=3, depth_step=1, heights=(1,), widths=(1, 3), filters=(2, 3)
        )
    )
    make_exported = staticmethod(lambda: space(**STRIDED))


class TestStrided(SpaceSuite):
    make = staticmethod(lambda: space(**STRIDED))
    make_small = staticmethod(
        lambda: space(
            min_depth=2, max_depth=2, heights=(3,), widths=(1, 3), filters=(2,), strides=(1, 2)
        )
    )
    make_exported = staticmethod(lambda: space(**STRIDED, pool_after=(1,)))


def test_an_image_that_is_too_large_is_refused():
    with pytest.raises(ShapeError, match="does not fit"):
        GraphBuilder.for_expansion([(2, 4, 6)]).add(PadTo((4, 5)), [Value(0, (2, 4, 6))])


def test_the_published_options_and_their_number():
    """4 heights, 4 widths, 4 numbers of filters; with strides, 3 · 3 more."""
    assert space(min_depth=6, max_depth=6).size() == 64**6 * 2**15
    assert space(min_depth=6, max_depth=6, strides=(1, 2, 3)).size() == (64 * 9) ** 6 * 2**15
    assert space().size() == sum(64**d * 2 ** (d * (d - 1) // 2) for d in (6, 8, 10, 12, 14))


def test_the_depth_is_raised_by_two_every_1600_samples():
    """Section 4.1; the schedule ends at `max_depth`."""
    cnn = space(min_depth=6, max_depth=20, depth_every=1600)
    samples = (0, 1599, 1600, 3200, 12_799, 10**9)
    assert [cnn.scheduled(n)["depth"] for n in samples] == [6, 6, 8, 10, 20, 20]
    assert space(min_depth=6, max_depth=20).scheduled(5000) == {}


@pytest.mark.parametrize("make", [Random, Enas])
def test_a_search_follows_the_schedule_and_goes_on_learning(make):
    cnn = space(min_depth=1, max_depth=4, depth_step=1, filters=(2, 3), depth_every=10)
    strategy = make(make.Config(), cnn, seed=0)
    depths = []
    for trial in range(40):
        [architecture] = strategy.ask([trial])
        depths.append(architecture["depth"])
        strategy.tell([Scored(trial, architecture, float(trial % 7))])
    assert depths == [1] * 10 + [2] * 10 + [3] * 10 + [4] * 10
    [later] = strategy.ask([UNTOLD_IDS + 5])
    assert later["depth"] == 4, "shared weights are trained on children of the current depth"
    if make is Enas:
        assert strategy.diagnostics()["updates"] == 4
        assert strategy.best_guess()["depth"] == 4
        decisions = strategy._decisions_of(later, 39)
        assert "depth" not in {each.name for each in decisions}, "it was not the strategy's answer"


def test_a_layer_picks_its_inputs_and_then_the_published_fields():
    names = [each.name for each in space(min_depth=2, max_depth=2, strides=(1, 2, 3)).decisions()]
    fields = (
        "inputs", "filter_height", "filter_width", "stride_height", "stride_width", "filters",
    )  # fmt: skip
    assert names == [f"layer{i}/{field}" for i in range(2) for field in fields]


def test_strides_that_are_fixed_are_not_asked():
    names = [each.name for each in space(min_depth=1, max_depth=1).decisions()]
    assert names == [
        "layer0/inputs",
        "layer0/filter_height",
        "layer0/filter_width",
        "layer0/filters",
    ]


def arch(inputs, filters=(2,), **fixed):
    answers = {}
    for layer, each in enumerate(inputs):
        answers |= {
            f"layer{layer}/inputs": each,
            f"layer{layer}/filter_height": 3,
            f"layer{layer}/filter_width": 1,
            **{f"layer{layer}/{name}": value[layer] for name, value in fixed.items()},
            f"layer{layer}/filters": filters[layer % len(filters)],
        }
    return Architecture(answers)


def test_a_layer_without_inputs_reads_the_image_and_loose_ends_are_joined():
    cnn = space(min_depth=4, max_depth=4, filters=(2, 3))
    specs = cnn.graph(arch([(), (), (0, 1), ()], filters=(2, 3))).weight_specs()
    shapes = [
        next(spec.shape for name, spec in specs.items() if name.startswith(f"layer{i}/3x1"))
        for i in range(4)
    ]
    assert shapes == [(2, 3, 3, 1), (3, 3, 3, 1), (2, 2 + 3, 3, 1), (3, 3, 3, 1)]
    # Layers 2 and 3 are read by none.
    assert specs["head5/linear/weight"].shape == (10, 2 + 3)


def test_a_chain_has_one_loose_end():
    cnn = space(min_depth=3, max_depth=3, filters=(2, 3))
    assert "head2/linear/weight" in cnn.graph(arch([(), (0,), (1,)])).weight_specs()


def test_more_filters_in_the_final_training():
    cnn = space(min_depth=1, max_depth=1, filters=(2, 3), extra_filters=40)
    assert "head42/linear/weight" in cnn.graph(arch([()])).weight_specs()


def test_pooling_halves_what_follows():
    cnn = space(min_depth=2, max_depth=2, filters=(2,), pool_after=(0,))
    graph = cnn.graph(arch([(), (0,)]))
    sizes = [node.shape[1:] for node in graph.nodes if node.op.kind == "conv_bn"]
    assert sizes == [(12, 9), (6, 4)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), *[st.integers(1, 9)] * 2), min_size=1, max_size=4))
def test_repair_keeps_every_image_whole(shapes):
    """The joined image is as large as the largest; each part is its image amid zeros."""
    torch.manual_seed(0)
    images = [torch.rand(1, *shape) + 1 for shape in shapes]
    flat = torch.cat([image.flatten(1) for image in images], 1)
    size = (max(shape[1] for shape in shapes), max(shape[2] for shape in shapes))
    g = GraphBuilder.for_expansion(tuple(shapes))
    result = join(g, list(g.inputs))
    assert result.shape == (sum(shape[0] for shape in shapes), *size)
    values = list(images)
    expanded = Graph(tuple(g.nodes), (result.index,)).expanded()
    for node in expanded.nodes[len(shapes) :]:
        values.append(node.op.forward([values[i] for i in node.inputs], {}, BATCH))
    joined = values[expanded.outputs[0]]
    assert joined.shape == (1, *result.shape)
    first = 0
    for image, (channels, height, width) in zip(images, shapes, strict=True):
        part = joined[:, first : first + channels]
        first += channels
        inside = part[:, :, (size[0] - height) // 2 :, (size[1] - width) // 2 :]
        torch.testing.assert_close(inside[:, :, :height, :width], image)
    torch.testing.assert_close(joined.sum(), flat.sum())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12))
def test_whatever_is_picked_can_be_built_and_run(seed, height, width):
    """No pick fails: images shrink to a pixel, and no channel of a leaf is lost."""
    cnn = space((1, height, width), **STRIDED, pool_after=(1, 3))
    architecture = cnn.sample(random.Random(seed))
    graph = cnn.graph(architecture)
    read = {i for name, each in architecture.items() if "inputs" in name for i in each}
    depth = architecture["depth"]
    features = sum(architecture[f"layer{i}/filters"] for i in range(depth) if i not in read)
    assert f"head{features}/linear/weight" in graph.weight_specs()
    logits = run(graph, WeightStore(0), torch.randn(3, 1, height, width), BATCH)
    assert logits.shape == (3, 10)
    assert torch.isfinite(logits).all()


def test_a_stride_reads_every_other_row():
    cnn = space(min_depth=1, max_depth=1, strides=(1, 2, 3), filters=(2,))
    graph = cnn.graph(arch([()], stride_height=[3], stride_width=[2]))
    (conv,) = [node for node in graph.nodes if node.op.kind == "conv_bn"]
    assert conv.shape == (2, math.ceil(12 / 3), math.ceil(9 / 2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_depth": 8, "max_depth": 6},
        {"heights": (2,)},
        {"filters": ()},
        {"filters": (24, 24)},
        {"strides": (0, 1)},
    ],
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        ZophCnn.Config(**wrong)
