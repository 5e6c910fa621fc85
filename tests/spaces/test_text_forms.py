"""Architectures as other tools print them, in a configuration and on the command line."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.errors import UserInputError
from hwnas.graph import Architecture
from hwnas.spaces import SPACES
from hwnas.spaces._given import given_architecture
from hwnas.study.catalogue import networks
from hwnas.study.load import load_config

WITH_A_FORM = ("darts", "enas_macro", "enas_micro", "enas_rnn", "nasbench201")
NETWORKS = [(name, each) for name in WITH_A_FORM for each in SPACES.get(name).published()]
GENOTYPE = (
    "Genotype(normal=[('skip_connect', 0), ('sep_conv_3x3', 1)], normal_concat=range(1, 3), "
    "reduce=[('max_pool_3x3', 0), ('none', 1)], reduce_concat=range(2, 3))"
)


def space(name, **changed):
    plugin = SPACES.get(name)
    shape = (35,) if plugin.task == "language_model" else (3, 8, 8)
    return plugin(plugin.Config(**changed), shape, 10)


@pytest.mark.parametrize(("name", "network"), NETWORKS)
def test_a_published_network_is_read_from_its_text(name, network):
    found = SPACES.get(name).published()[network]
    made = space(name, **found.settings)
    text = made.format(found.architecture)
    assert made.parse(text) == found.architecture
    assert made.parse(f"  {text}\n") == found.architecture


def test_arcs_are_those_of_the_authors_scripts():
    """The first numbers of cifar10_macro_final.sh, cifar10_micro_final.sh and ptb_final.sh."""
    for name, network, start in (
        ("enas_macro", "enas_macro_script", "0 3 0 0 1 0 2 0 0 1 2 0 0 0 0 3 1 1 0 1 0"),
        ("enas_micro", "enas_micro_cifar10", "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 1 0 1 0"),
        ("enas_rnn", "enas_ptb", "0 0 0 1 1 2 1 2 0 2 0 5 1 1 0 6 1 8 1 8 1 8 1"),
        ("enas_rnn", "enas_lm", "0 2 1 0 2 1 2 2 4 0 5 0 3 2 6 2"),
    ):
        found = SPACES.get(name).published()[network]
        assert space(name, **found.settings).format(found.architecture).startswith(start)


def test_an_arc_may_have_numpys_brackets_and_line_ends():
    made = space("enas_micro", nodes=1)
    assert made.parse("[0 2 1\n 0]\n[1 4 1 3]") == made.parse("0,2,1,0, 1,4,1,3")


def test_by_channels_a_range_is_its_first_channel_and_its_number():
    """The authors' controller appends count + 1 to the arc."""
    made = space("enas_macro", layers=3, channels=4, ops=["conv_3x3"], whole_channels=False)
    found = made.parse("0 3  1 2 1  3 1 0 1")
    assert found["layer1/first_conv_3x3"] == 1
    assert found["layer1/count_conv_3x3_from1"] == 2
    assert found["layer2/skips"] == (1,)
    assert made.format(found) == "0 3 1 2 1 3 1 0 1"


def test_a_genotype_needs_the_outputs_that_it_says():
    base = {"nodes": 1, "ops": ["skip_connect", "sep_conv_3x3", "max_pool_3x3", "none"]}
    with pytest.raises(UserInputError, match="normal_concat") as caught:
        space("darts", **base).parse(GENOTYPE)
    assert "--set space.normal_concat=[1, 2]" in caught.value.hint
    made = space("darts", **base, normal_concat=[1, 2])
    assert made.format(made.parse(GENOTYPE)) == GENOTYPE
    with pytest.raises(UserInputError, match="reduce_concat") as caught:
        space("darts", **base, normal_concat=[1, 2], reduce_concat=[0]).parse(GENOTYPE)
    assert "space.reduce_concat=null" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "changed", "text", "message"),
    [
        ("darts", {}, "__import__('os').system('true')", "call of"),
        ("darts", {}, GENOTYPE, "nodes: 1, this one has 4"),
        ("enas_micro", {}, "0 1 0 1 0 1", "eight numbers"),
        ("enas_micro", {}, "0 1 0 1 0 1 0 x", "'x' is no number"),
        ("enas_micro", {}, "0 1 0 1 0 1 0 1", "nodes: 1, this one has 5"),
        ("enas_micro", {"nodes": 1}, "0 1 0 5 0 1 0 1", "no op 5"),
        ("enas_micro", {"nodes": 1}, "0 1 2 1 0 1 0 1", r"2 is not one of \[0, 1\]"),
        ("enas_micro", {}, "-1 1 0 1 0 1 0 1", "'-1' is no number"),
        ("enas_macro", {"layers": 4}, "0 0 0 0 0 0", "3 layers have: space.layers"),
        ("enas_macro", {"layers": 3}, "0 0 0", "6 numbers, not 3"),
        ("enas_macro", {"layers": 3}, "0 6 0 0 0 0", "no op 6"),
        ("enas_macro", {"layers": 3}, "0 0 2 0 0 0", "not 0 or 1"),
        ("enas_macro", {"layers": 3, "ops": ["conv_3x3"]}, "0 1 0 0 0 0", "not one of"),
        ("enas_rnn", {"nodes": 2}, "0 0 0 1 1", "nodes: 3, this one has 2"),
        ("enas_rnn", {"nodes": 2}, "0 0", "first_node: searched"),
        ("enas_rnn", {"nodes": 2}, "0 0 4", "no activation 4"),
        ("enas_rnn", {"nodes": 2}, "0 1 2", r"1 is not one of \[0\]"),
        ("enas_rnn", {"nodes": 1, "first_node": "tanh"}, "0 1 2", "first_node: tanh"),
        ("nasbench201", {}, "|none~0|", "nodes: 2, this one has 4"),
        ("nasbench201", {}, "|none~0|+|none~0|", "node 2 should read"),
        ("mobile", {}, "0 1 2", "Mobile has no text form"),
        ("darts", {}, "picks.txt", "picks.txt cannot be read"),
        ("darts", {}, "my picks.json", "my picks.json cannot be read"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(name, changed, text, message):
    with pytest.raises(UserInputError, match=message):
        given_architecture(text, space(name, **changed))


def test_a_file_may_have_the_text_or_the_picks(tmp_path):
    made = space("nasbench201", nodes=2)
    expected = Architecture({"edge0to1": "none"})
    for name, text in (
        ("cell.txt", "|none~0|\n"),
        ("cell.json", json.dumps(expected.to_json())),
    ):
        (tmp_path / name).write_text(text)
        assert given_architecture(str(tmp_path / name), made) == expected


@pytest.mark.parametrize(
    ("recipe", "name", "network"),
    [
        ("digits_nasbench201", "nasbench201", "arch_1"),
        ("cifar10_darts_v2", "darts", "darts_v1"),
        ("cifar10_enas_macro_final", "enas_macro", "enas_macro_script"),
    ],
)
def test_a_text_comes_through_the_command_line(recipe, name, network):
    """`--set` reads YAML, to which a bar at the start means something else."""
    found = SPACES.get(name).published()[network]
    text = space(name, **found.settings).format(found.architecture)
    assert load_config(recipe, overrides=[f"architecture={text}"]).architecture == text


def test_published_networks_are_listed_with_their_text():
    found = {row.name: row.text for row in networks()}
    assert found["arch_1"].startswith("|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+")
    assert found["darts_v2"].startswith("Genotype(normal=[('sep_conv_3x3', 0)")
    assert found["mobilenet_v2"] is None


_SMALL = {
    "darts": {"nodes": 1},
    "enas_macro": {"layers": 3, "channels": 4, "whole_channels": False, "ops": ["conv_3x3"]},
    "enas_micro": {"nodes": 1},
    "enas_rnn": {"nodes": 2},
    "nasbench201": {"nodes": 2},
}


@pytest.mark.parametrize("name", WITH_A_FORM)
@given(text=st.text("0123456789 -٣²[],|+~none().='\n") | st.text())
@settings(max_examples=60, deadline=None)
def test_no_text_does_more_than_raise_an_error(name, text):
    made = space(name, **_SMALL[name])
    try:
        found = made.parse(text)
        made.graph(found)
    except UserInputError:
        return
    assert made.parse(made.format(found)) == found


_OP, _BIT = st.integers(0, 5), st.integers(0, 1)


@given(arc=st.tuples(_OP, _OP, _BIT, _OP, _BIT, _BIT))
@settings(max_examples=60, deadline=None)
def test_an_arc_comes_back_number_for_number(arc):
    made = space("enas_macro", layers=3)
    text = " ".join(map(str, arc))
    assert made.format(made.parse(text)) == text
