import random

import pytest
import torch
from pydantic import ValidationError

from hwnas.graph import EVAL, Architecture
from hwnas.graph.counts import macs, params
from hwnas.spaces.mobile import Mobile, Stage
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore
from hwnas.testing.spaces import SpaceSuite


def mobile(image=(1, 8, 8), classes=3, **settings):
    small = {"stem": 4, "stem_stride": 1, "features": 8, "divisor": 2} | settings
    return Mobile(Mobile.Config.model_validate(small), image, classes)


def tiny(**settings):
    """Every kind of pick: width, channels, depth, op with and without zero."""
    return mobile(
        stages=[
            {"channels": 4, "kernels": [3], "expansions": [1]},
            {"channels": [4, 6, 2], "blocks": [1, 2, 1], "expansions": [2]},
            {"channels": 8, "blocks": 2, "stride": 2, "kernels": [3], "squeezes": [0, 0.5]},
        ],
        kernels=[3, 5],
        expansions=[1, 2],
        width=[100, 150, 50],
        **settings,
    )


def kinds(space, picks):
    return [node.op.kind for node in space.graph(Architecture(picks)).nodes]


class TestMobile(SpaceSuite):
    make = staticmethod(tiny)
    make_small = staticmethod(
        lambda: mobile(
            stages=[
                {"channels": [2, 4, 2], "blocks": [1, 2, 1]},
                {"channels": 4, "blocks": 2, "expansions": [2], "squeezes": [0, 0.5]},
            ],
            kernels=[3],
            expansions=[1, 2],
            width=[100, 200, 100],
        )
    )
    make_exported = staticmethod(tiny)


class TestMobileByStage(SpaceSuite):
    """MnasNet's way: one op for all blocks of a stage."""

    make = staticmethod(lambda: tiny(per="stage"))
    make_small = staticmethod(lambda: tiny(per="stage"))


def test_the_published_search_has_21_decisions_of_six_or_seven_candidates():
    space = Mobile(Mobile.Config(), (3, 224, 224), 1000)
    decisions = space.decisions()
    counts = [decision.count for decision in decisions]
    assert counts == [6, 7, 7, 7] * 5 + [6]
    assert space.size() == 6**6 * 7**15
    assert decisions[1].options == (
        "k3_e3", "k3_e6", "k5_e3", "k5_e6", "k7_e3", "k7_e6", "zero",
    )  # fmt: skip


def test_the_widest_network_of_the_search_has_the_stem_and_the_head_of_the_paper():
    space = Mobile(Mobile.Config(), (3, 224, 224), 1000)
    graph = space.graph(Architecture({d.name: "k7_e6" for d in space.decisions()}))
    specs = graph.weight_specs()
    assert specs["stem32/conv/weight"].shape == (32, 3, 3, 3)
    assert specs["head1280/linear/weight"].shape == (1000, 1280)
    shapes = [node.shape for node in graph.nodes if node.op.kind == "inverted_bottleneck"]
    assert shapes[0] == (16, 112, 112)
    assert shapes[1::4] == [
        (24, 56, 56), (40, 28, 28), (80, 14, 14), (96, 14, 14), (192, 7, 7), (320, 7, 7),
    ]  # fmt: skip


def test_a_block_that_keeps_the_shape_has_a_shortcut_and_another_none():
    space = mobile(stages=[{"channels": 6, "blocks": 3}])
    ops = dict.fromkeys(("stage0/block0/op", "stage0/block1/op", "stage0/block2/op"), "k3_e3")
    blocks = [kind for kind in kinds(space, ops) if kind in ("inverted_bottleneck", "sum")]
    assert blocks == ["inverted_bottleneck"] + 2 * ["inverted_bottleneck", "sum"]


def test_a_stride_forbids_shortcut_and_zero_though_the_channels_stay():
    space = mobile(stages=[{"channels": 4, "stride": 2}], stem=4)
    assert "sum" not in kinds(space, {"stage0/block0/op": "k3_e3"})
    assert "zero" not in space.decisions()[0].options


def test_a_stride_on_a_single_pixel_makes_no_shortcut_either():
    space = mobile(image=(1, 1, 1), stages=[{"channels": 4, "stride": 2}], stem=4)
    assert "sum" not in kinds(space, {"stage0/block0/op": "k3_e3"})


def test_the_searched_table_at_135_percent_is_the_published_gpu_network():
    found = Mobile.published()["proxyless_gpu"]
    scaled = Mobile(Mobile.Config(width=135, dropout=0.3), (3, 224, 224), 1000)
    published = Mobile(Mobile.Config.model_validate(found.settings), (3, 224, 224), 1000)
    assert scaled.graph(found.architecture) == published.graph(found.architecture)


def test_a_first_block_that_keeps_the_shape_may_be_left_out():
    space = mobile(stages=[{"channels": 4}], stem=4)
    assert "zero" in space.decisions()[0].options
    assert "inverted_bottleneck" not in kinds(space, {"stage0/block0/op": "zero"})


def test_a_block_that_is_zero_computes_what_the_network_without_it_does():
    long, short = (mobile(stages=[{"channels": 6, "blocks": n}]) for n in (2, 1))
    first = {"stage0/block0/op": "k5_e3"}
    with_zero = long.graph(Architecture(first | {"stage0/block1/op": "zero"}))
    without = short.graph(Architecture(first))
    assert with_zero == without
    other = long.graph(Architecture(first | {"stage0/block1/op": "k3_e3"}))
    store, x = WeightStore(0), torch.randn(2, 1, 8, 8)
    assert not torch.equal(run(other, store, x, EVAL), run(without, store, x, EVAL))


@pytest.mark.parametrize(
    ("width", "expected"),
    [  # the stem and the head of 32 and 1280 in the published networks of other widths
        (35, (16, 1280)), (50, (16, 1280)), (100, (32, 1280)), (112, (40, 1432)),
        (135, (40, 1728)), (140, (48, 1792)),
    ],
)  # fmt: skip
def test_scaled_channels_are_rounded_as_published(width, expected):
    config = Mobile.Config(width=width)
    graph = Mobile(config, (3, 32, 32), 10).realise(lambda decision: decision.decode(0))[1]
    features = [each.shape for name, each in graph.weight_specs().items() if "linear" in name]
    stem = graph.nodes[1].shape[0]
    assert (stem, features[0][1]) == expected


def test_more_pixels_cost_more_but_are_the_same_parameters():
    small, large = tiny(image=(1, 8, 8)), tiny(image=(1, 16, 16))
    architecture = small.sample(random.Random(0))
    small, large = small.graph(architecture), large.graph(architecture)
    assert params(small) == params(large)
    assert macs(large) > 3 * macs(small)


def test_decisions_that_have_one_answer_are_not_asked():
    space = mobile(stages=[{"channels": [4, 4, 8], "blocks": 1, "kernels": [3], "zero": False}])
    names = [decision.name for decision in space.decisions()]
    assert names == ["stage0/block0/op"]
    assert Architecture({}) == mobile(stages=[{"channels": 6}], kernels=[3], expansions=[2]).sample(
        random.Random(0)
    )


def test_published_architectures_are_of_the_space_that_can_be_searched():
    found = Mobile.published()["proxyless_mobile"]
    space = Mobile(Mobile.Config.model_validate(found.settings), found.input_shape, 1000)
    assert space.size() == 6**6 * 7**15
    assert space.neighbour(found.architecture, random.Random(0)) != found.architecture


@pytest.mark.parametrize(
    "mistake",
    [
        {"kernels": [4]}, {"kernels": []}, {"kernels": [3, 3]}, {"expansions": [0]},
        {"squeezes": [2.0]}, {"width": 0}, {"width": [50, 25, 25]}, {"width": [50, 75, 0]},
        {"stages": []}, {"activation": "rellu"}, {"chanels": 3},
    ],
)  # fmt: skip
def test_settings_that_make_no_space_are_refused(mistake):
    with pytest.raises(ValidationError):
        Mobile.Config.model_validate(mistake)


@pytest.mark.parametrize(
    "mistake",
    [
        {}, {"channels": 0}, {"channels": 8, "stride": 3}, {"channels": 8, "kernels": [2]},
        {"channels": [8, 4, 1]}, {"channels": 8, "blocks": [0, 2, 1]},
    ],
)  # fmt: skip
def test_stages_that_make_no_space_are_refused(mistake):
    with pytest.raises(ValidationError):
        Stage.model_validate(mistake)
