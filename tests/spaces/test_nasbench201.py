import random
from pathlib import Path

import pytest

from hwnas.errors import UserInputError
from hwnas.graph.counts import macs, params
from hwnas.spaces.nasbench201 import NasBench201, from_arch_str, to_arch_str
from hwnas.testing.spaces import SpaceSuite

TABLE = Path(__file__).parents[2].parent / "shared/data/nasbench/nasbench201.parquet"
THREE_CONVS = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
)
ALL_NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def make(channels=4, size=8, **settings):
    settings = {"stages": 2, "cells": 1, **settings}
    return NasBench201(NasBench201.Config(channels=channels, **settings), (3, size, size), 10)


class TestNasBench201(SpaceSuite):
    make = staticmethod(make)
    make_small = staticmethod(lambda: make(nodes=3))
    make_exported = staticmethod(lambda: make(size=4))

    def test_its_size_is_the_published_one(self):
        assert make().size() == 15_625  # section 2.1


@pytest.mark.parametrize(
    ("classes", "size", "millions", "megas"),
    [(100, 32, 0.808, 113.96), (120, 16, 0.810, 28.50)],
)
def test_counts_for_the_other_data_sets_are_the_published_ones(classes, size, millions, megas):
    """CIFAR-100 and ImageNet-16-120: D-X-Y/NATS-Bench, issue 18."""
    space = NasBench201(NasBench201.Config(), (3, size, size), classes)
    graph = space.graph(from_arch_str(THREE_CONVS))
    assert params(graph) / 1e6 == pytest.approx(millions, abs=5e-4)
    assert macs(graph) / 1e6 == pytest.approx(megas, abs=5e-3)


def test_a_cell_of_nones_still_builds():
    graph = make().graph(from_arch_str(ALL_NONE))
    assert [node.op.kind for node in graph.nodes].count("zero") == 2 * 3


def test_an_op_that_nothing_reads_has_no_weights():
    text = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    assert params(make().graph(from_arch_str(text))) == params(
        make().graph(from_arch_str(text.replace("nor_conv_3x3", "none")))
    )


def test_the_notation_goes_both_ways():
    space, rng = make(), random.Random(0)
    for _ in range(20):
        architecture = space.sample(rng)
        assert from_arch_str(to_arch_str(architecture)) == architecture
    assert to_arch_str(from_arch_str(THREE_CONVS)) == THREE_CONVS


@pytest.mark.skipif(not TABLE.is_file(), reason="../shared/data/nasbench is not here")
def test_every_string_of_the_table_is_another_architecture():
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = parquet.read_table(TABLE, columns=["arch_str"])["arch_str"].to_pylist()
    architectures = [from_arch_str(text) for text in texts]
    assert len(set(architectures)) == len(texts) == make().size()
    assert [to_arch_str(each) for each in architectures] == texts


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "node 1 should read 1"),
        ("|none~0|+|none~0|", "node 2 should read 2"),
        ("|none~1|", "edge 0 of node 1 starts at 1"),
        ("|conv~0|", "no op 'conv'"),
        ("none~0", "node 1 should read"),
    ],
)
def test_another_notation_is_refused(text, why):
    with pytest.raises(UserInputError, match=why):
        from_arch_str(text)


def test_an_architecture_of_another_space_has_no_notation():
    architecture = from_arch_str(THREE_CONVS)
    with pytest.raises(UserInputError, match="not of the space"):
        to_arch_str(type(architecture)({**architecture, "depth": 2}))
