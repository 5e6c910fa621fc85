import math

import pytest
from pydantic import ValidationError

from hwnas.graph import Architecture
from hwnas.graph.counts import macs, params
from hwnas.graph.ops.drop_path import DropPath
from hwnas.spaces.nasnet import OPS, NasNet
from hwnas.testing.spaces import SpaceSuite


def make(shape=(3, 8, 8), classes=10, **settings):
    return NasNet(NasNet.Config.model_validate(settings), shape, classes)


class TestNasNet(SpaceSuite):
    make = staticmethod(
        lambda: make(nodes=3, repeats=1, channels=4, stem_channels=4, auxiliary=True, drop_path=0.3)
    )
    make_small = staticmethod(
        lambda: make(
            nodes=1,
            repeats=1,
            channels=4,
            stem_channels=4,
            ops=("avg_pool_3x3", "conv_1x7_7x1"),
        )
    )
    make_exported = staticmethod(
        lambda: make(nodes=2, repeats=1, channels=4, stem_channels=4, drop_path=0.3)
    )


class TestNasNetForImageNet(SpaceSuite):
    make = staticmethod(
        lambda: make((3, 35, 35), nodes=2, repeats=1, channels=16, stem_channels=6, stem="imagenet")
    )
    make_small = staticmethod(
        lambda: make(
            (3, 17, 17),
            nodes=1,
            repeats=1,
            channels=16,
            stem_channels=4,
            stem="imagenet",
            ops=("identity", "max_pool_3x3"),
        )
    )


def published(name, **settings):
    found = NasNet.published()[name]
    config = NasNet.Config.model_validate({**found.settings, **settings})
    return NasNet(config, found.input_shape, found.classes).graph(found.architecture)


def test_the_space_has_the_papers_thirteen_ops_and_two_combinations():
    space = make()
    assert len(OPS) == 13
    assert space.size() == math.prod((i + 2) ** 2 * 13**2 * 2 for i in range(5)) ** 2
    names = [each.name for each in make(nodes=1).decisions()][:5]
    assert names == [f"normal/node0/{x}" for x in ("input1", "input2", "op1", "op2", "combine")]


@pytest.mark.parametrize(
    ("name", "trainable", "with_statistics"),
    [
        ("nasnet_a_cifar", 3_346_538, 3_383_786),
        ("nasnet_a_mobile", 5_289_978, 5_326_716),
        ("nasnet_a_large", 88_753_150, 88_949_818),
    ],
)
def test_counts_of_nasnet_a(name, trainable, with_statistics):
    """Keras' ports of the mobile and the large network count the same, trainable and in all."""
    graph = published(name)
    assert params(graph) == trainable
    values = graph.inference().weight_specs().values()
    assert sum(math.prod(spec.shape) for spec in values) == with_statistics


def test_nasnet_a_ends_in_768_and_4032_channels():
    """What "6 @ 768" and "6 @ 4032" mean: channels before the last pooling."""
    for name, channels in (("nasnet_a_cifar", 768), ("nasnet_a_large", 4032)):
        specs = published(name).weight_specs()
        assert specs[f"head{channels}/linear/weight"].shape[1] == channels


def test_the_auxiliary_head_is_before_the_second_reduction():
    specs = published("nasnet_a_cifar").weight_specs()
    assert specs["auxiliary384/reduce/conv/weight"].shape == (128, 384, 1, 1)
    assert specs["auxiliary384/full/conv/weight"].shape == (768, 128, 4, 4)


def test_drop_path_grows_with_the_cell_and_spares_identities():
    """20 cells; eight of the ten branches of the normal cell, nine of the reduction's."""
    rates = [n.op.rate for n in published("nasnet_a_cifar").nodes if isinstance(n.op, DropPath)]
    assert sorted(set(rates)) == pytest.approx([0.4 * (cell + 1) / 20 for cell in range(20)])
    counts = [rates.count(rate) for rate in sorted(set(rates))]
    assert counts == [9 if cell in (6, 13) else 8 for cell in range(20)]


def test_neither_the_head_nor_drop_path_changes_what_is_exported():
    plain = published("nasnet_a_cifar", auxiliary=False, drop_path=0.0)
    trained = published("nasnet_a_cifar")
    assert trained.inference().weight_specs() == plain.weight_specs()
    assert macs(trained) == macs(plain)


def one_block(op="identity", combine="add", inputs=(0, 1)):
    answers = {}
    for cell in ("normal", "reduction"):
        for i in range(2):
            node = f"{cell}/node{i}"
            answers |= {f"{node}/input1": inputs[0] + i, f"{node}/input2": inputs[1] + i}
            answers |= {f"{node}/op1": op, f"{node}/op2": op, f"{node}/combine": combine}
    return Architecture(answers)


def test_a_concatenated_block_is_narrowed_where_it_is_read():
    """Node 0 has twice the channels; node 1 reads it through a 1×1 convolution."""
    space = make(nodes=2, repeats=1, channels=4, stem_channels=4)
    specs = space.graph(one_block(combine="concat")).weight_specs()
    assert specs["cell0/node1/b/identity/from2x8/conv/weight"].shape == (4, 8, 1, 1)
    specs = space.graph(one_block()).weight_specs()
    assert "cell0/node1/b/identity/from2x4/conv/weight" not in specs


def test_a_strided_identity_is_a_strided_convolution():
    space = make(nodes=2, repeats=1, channels=4, stem_channels=4)
    specs = space.graph(one_block()).weight_specs()
    assert "cell2/node0/a/identity/from0x8/conv/weight" not in specs  # a normal cell
    assert specs["cell1/node0/a/identity/from0x8/conv/weight"].shape == (8, 8, 1, 1)


@pytest.mark.parametrize(
    ("op", "reduced"), [("conv_3x3", 4), ("conv_1x7_7x1", 4), ("conv_1x3_3x1", 6)]
)
def test_full_convolutions_are_bottlenecks(op, reduced):
    """A quarter of the channels, three eighths for 1×3 then 3×1."""
    space = make(nodes=2, repeats=1, channels=16, stem_channels=16)
    specs = space.graph(one_block(op)).weight_specs()
    assert specs[f"cell0/node0/a/{op}/from0x16/narrow/conv/weight"].shape[0] == reduced


@pytest.mark.parametrize(
    "mistake",
    [
        {"ops": ("conv_9x9",)},
        {"ops": ("identity", "identity")},
        {"combines": ("multiply",)},
        {"normal_output": (7,)},
        {"reduction_output": (3, 2)},
        {"normal_output": ()},
        {"channels": 6},
        {"channels": 44, "stem": "imagenet"},
    ],
)
def test_settings_that_make_no_space_are_refused(mistake):
    with pytest.raises(ValidationError):
        NasNet.Config(**mistake)
