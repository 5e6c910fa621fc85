import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hwnas.graph import BATCH, TRAIN, Architecture, GraphBuilder
from hwnas.graph.counts import params
from hwnas.spaces.enas_macro import OPS, EnasMacro
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore
from hwnas.testing.spaces import SpaceSuite


def space(image=(3, 8, 8), **settings_):
    return EnasMacro(EnasMacro.Config(**settings_), image, 10)


class TestEnasMacro(SpaceSuite):
    make = staticmethod(lambda: space(layers=6, channels=8))
    make_small = staticmethod(lambda: space(layers=3, channels=2, ops=OPS[1:3]))
    make_exported = staticmethod(lambda: space(layers=4, channels=4))


class TestFinalForm(SpaceSuite):
    make = staticmethod(lambda: space(layers=6, channels=8, form="final"))
    make_small = staticmethod(lambda: space(layers=3, channels=2, ops=OPS[:2], form="final"))
    make_exported = staticmethod(lambda: space(layers=4, channels=4, form="final"))


class TestByChannels(SpaceSuite):
    make = staticmethod(lambda: space(layers=4, channels=6, whole_channels=False))
    make_small = staticmethod(
        lambda: space(layers=3, channels=2, ops=OPS[1:3], whole_channels=False)
    )
    make_exported = staticmethod(lambda: space(layers=3, channels=4, whole_channels=False))


@pytest.mark.parametrize("layers", [3, 4, 12])
def test_size_is_the_published_formula(layers):
    """Pham et al., section 2.3: 6^L · 2^(L (L - 1) / 2); 1.6e29 for L = 12."""
    assert space(layers=layers).size() == 6**layers * 2 ** (layers * (layers - 1) // 2)
    decisions = space(layers=layers, channels=2).decisions()
    assert space(layers=layers).size() == np.prod([int(d.count) for d in decisions], dtype=object)


def test_the_papers_size_of_twelve_layers():
    assert space().size() == pytest.approx(1.6e29, rel=0.01)


def test_a_layer_picks_its_op_and_then_its_skips():
    decisions = space(layers=3, channels=2).decisions()
    assert [(each.name, len(each.options)) for each in decisions] == [
        ("layer0/op", 6),
        ("layer0/skips", 0),
        ("layer1/op", 6),
        ("layer1/skips", 1),
        ("layer2/op", 6),
        ("layer2/skips", 2),
    ]


def arch(ops, skips):
    answers = {}
    for layer, (op, skip) in enumerate(zip(ops, skips, strict=True)):
        answers |= {f"layer{layer}/op": op, f"layer{layer}/skips": skip}
    return Architecture(answers)


ALL_SKIPS = [tuple(range(i)) for i in range(6)]


def test_every_earlier_output_is_reduced_after_a_third_and_two_thirds():
    specs = space(layers=6, channels=4).graph(arch(OPS, ALL_SKIPS)).weight_specs()
    found = {name.rsplit("/", 2)[0] for name in specs if name.startswith("reduce")}
    # After layer 1: the stem and layers 0 and 1; after layer 3, layers 2 and 3 as well.
    assert found == {f"reduce1/from{i}" for i in range(3)} | {f"reduce3/from{i}" for i in range(5)}


def test_reductions_that_nothing_reads_are_not_made():
    specs = space(layers=6, channels=4).graph(arch(OPS, [()] * 6)).weight_specs()
    found = {name.rsplit("/", 2)[0] for name in specs if name.startswith("reduce")}
    assert found == {"reduce1/from2", "reduce3/from4"}


@pytest.mark.parametrize(("form", "widths"), [("search", [4, 4, 4]), ("final", [4, 8, 16])])
def test_channels_double_in_the_final_form_only(form, widths):
    graph = space(layers=6, channels=4, form=form).graph(arch(["conv_3x3"] * 6, [()] * 6))
    specs = graph.weight_specs()
    assert [specs[f"layer{i}/conv_3x3/conv/weight"].shape[0] for i in (1, 3, 5)] == widths


def test_a_layer_is_the_norm_of_its_op_and_the_skips():
    """By hand, with the authors' equations, for a layer that skips from the stem."""
    ops, skips = ["conv_3x3", "max_pool_3x3", "avg_pool_3x3"], [(), (0,), ()]
    macro, store = space((3, 4, 4), layers=3, channels=2), WeightStore(0)
    graph = macro.graph(arch(ops, skips))
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    run(graph, store, x, BATCH)
    w = store.state()

    def norm(y):
        return (y - y.mean((0, 2, 3), keepdim=True)) / (
            y.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
        ).sqrt()

    def conv(y, name):
        weight = w[f"{name}/weight"]
        return torch.nn.functional.conv2d(y, weight, padding=weight.shape[-1] // 2)

    def reduce(y, name):
        odd = torch.nn.functional.pad(y, (0, 1, 0, 1))[:, :, 1:, 1:]
        parts = [conv(y[:, :, ::2, ::2], f"{name}/even"), conv(odd[:, :, ::2, ::2], f"{name}/odd")]
        return norm(torch.cat(parts, 1))

    stem = norm(conv(x, "stem/conv"))
    y = norm(conv(stem, "layer0/conv_3x3/reduce/conv")).relu()
    first = norm(conv(y, "layer0/conv_3x3/conv")).relu()
    stem, first = reduce(stem, "reduce0/from0"), reduce(first, "reduce0/from1")
    y = norm(conv(first, "layer1/max_pool_3x3/reduce/conv")).relu()
    second = norm(torch.nn.functional.max_pool2d(y, 3, 1, 1) + stem)
    second = reduce(second, "reduce1/from2")
    y = norm(conv(second, "layer2/avg_pool_3x3/reduce/conv")).relu()
    third = norm(torch.nn.functional.avg_pool2d(y, 3, 1, 1, count_include_pad=False))
    expected = third.mean((2, 3)) @ w["head/linear/weight"].T
    torch.testing.assert_close(run(graph, store, x, BATCH), expected, atol=1e-4, rtol=1e-4)


def by_channels(ranges, layers=3):
    answers = {}
    for layer in range(layers):
        for op, (first, count) in ranges.items():
            answers[f"layer{layer}/first_{op}"] = first
            answers[f"layer{layer}/count_{op}_from{first}"] = count
        answers[f"layer{layer}/skips"] = ()
    return Architecture(answers)


def test_a_branch_owns_a_range_of_channels():
    """Only the range's filters get a gradient, and the range's statistics move."""
    masked, store = space(layers=3, channels=6, whole_channels=False), WeightStore(0)
    graph = masked.graph(by_channels(dict.fromkeys(OPS, (2, 3))))
    weights = store.trainable(graph)
    run(graph, store, torch.randn(4, 3, 8, 8), TRAIN).square().sum().backward()
    for op in OPS[:4]:
        gradient = weights[f"layer2/{op}/conv/weight"].grad.abs().sum((1, 2, 3))
        assert [bool(each) for each in gradient] == [False, False, True, True, True, False]
    moved = store.state()["layer2/conv_3x3/bn/mean"] != 0
    assert moved.tolist() == [False, False, True, True, True, False]
    columns = weights["layer2/join/weight"].grad.abs().sum((0, 2, 3)).reshape(6, 6)
    assert (columns > 0).tolist() == [[False, False, True, True, True, False]] * 6


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 4), st.data())
def test_a_range_is_what_is_left_when_the_whole_is_cut_afterwards(first, data):
    """1×1 convolution, norm, ReLU and pooling of a range: the range of those of all channels."""
    count = data.draw(st.integers(1, 5 - first))
    store, x = WeightStore(0), torch.randn(2, 3, 6, 6)
    g = GraphBuilder((3, 6, 6))
    y = g.conv_bn(g.input, channels=5, relu="after", weights="branch")
    whole = run(g.finish(g.avg_pool(y)), store, x, BATCH)
    g = GraphBuilder((3, 6, 6))
    y = g.ranged_conv(g.input, channels=5, outputs=(first, count), weights="branch/conv")
    y = g.relu(g.ranged_batch_norm(y, channels=5, first=first, weights="branch/bn"))
    part = run(g.finish(g.avg_pool(y)), store, x, BATCH)
    torch.testing.assert_close(part, whole[:, first : first + count], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", range(4))
def test_a_number_of_channels_fits_its_first_one(first):
    masked = space(layers=3, channels=4, ops=("conv_3x3",), whole_channels=False)
    decisions = masked.decisions_of(by_channels({"conv_3x3": (first, 1)}).replay())
    assert decisions[1].options == tuple(range(1, 1 + min(3, 4 - first)))


def test_the_size_by_channels_counts_the_ranges_that_the_softmax_leaves():
    """For C channels: C - 1 numbers from the first, C - s from the others."""
    ranges = 3 + 3 + 2 + 1
    masked = space(layers=3, channels=4, whole_channels=False)
    assert masked.size() == (ranges**6) ** 3 * 2**3


def test_the_final_form_scales_picked_channels():
    final = space(
        layers=3, channels=4, whole_channels=False, form="final", channel_scale=3, ops=OPS[2:6:3]
    )
    graph = final.graph(by_channels({"conv_5x5": (0, 2), "max_pool_3x3": (1, 3)}))
    specs = graph.weight_specs()
    assert specs["stem/conv/weight"].shape[0] == 12
    assert specs["layer0/conv_5x5/conv/weight"].shape == (6, 12, 5, 5)
    assert specs["layer0/join/conv/weight"].shape == (12, 6 + 9, 1, 1)
    assert specs["layer2/join/conv/weight"].shape == (48, 6 + 9, 1, 1)


@pytest.mark.parametrize(
    ("name", "is_trained"),
    [("enas_macro_script", False), ("enas_macro_script_as_trained", True)],
)
def test_the_scripts_network_has_the_parameters_that_the_code_creates(name, is_trained):
    """Counted by hand from `_fixed_layer` and `_model`; ours has a bias in the last layer."""
    found = EnasMacro.published()[name]
    network = space((3, 32, 32), **found.settings).graph(found.architecture)
    width, total = 96, 3 * 9 * 96 + 2 * 96
    for layer in range(24):
        op = found.architecture[f"layer{layer}/op"]
        assert not (is_trained and "sep" in op)
        k = int(op[-1])
        own = k * k * width + width**2 if "sep" in op else k * k * width**2
        total += width**2 + own + 4 * width
        if layer:
            total += (len(found.architecture[f"layer{layer}/skips"]) + 1) * width**2 + 2 * width
        if layer in (7, 15):
            total += (layer + 2) * (width * 2 * width + 4 * width)
            width *= 2
    assert params(network) == total + width * 10 + 10
    assert total + width * 10 == {True: 42_559_392, False: 30_947_424}[is_trained]


@pytest.mark.parametrize(
    "wrong",
    [
        {"ops": ("conv_7x7",)},
        {"ops": ("conv_3x3", "conv_3x3")},
        {"channels": 5},
        {"layers": 2},
        {"channel_scale": 2},
    ],
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        EnasMacro.Config(**wrong)


def test_any_op_can_be_anywhere():
    rng = random.Random(0)
    seen = {value for _ in range(20) for value in space(channels=2).sample(rng).values()}
    assert set(OPS) <= {each for each in seen if isinstance(each, str)}
