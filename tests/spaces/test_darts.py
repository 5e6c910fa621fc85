import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hwnas.errors import UserInputError
from hwnas.export.onnx import to_onnx
from hwnas.export.verify import parity
from hwnas.graph import EVAL, TRAIN
from hwnas.graph.counts import macs, params
from hwnas.graph.ops.activation import Relu
from hwnas.graph.ops.drop_path import DropPath
from hwnas.graph.ops.factorized_reduction import FactorizedReduction
from hwnas.graph.ops.norm import BatchNorm
from hwnas.spaces._published_darts import GENOTYPES
from hwnas.spaces.darts import (
    MORE_OPS,
    OPS,
    Darts,
    Genotype,
    from_genotype,
    genotype_settings,
    to_genotype,
)
from hwnas.supernet.config import OptimiserConfig
from hwnas.supernet.run import run
from hwnas.supernet.train import Trainer
from hwnas.supernet.weights import WeightStore
from hwnas.testing.spaces import SpaceSuite


def make(shape=(3, 8, 8), classes=10, **config):
    return Darts(Darts.Config.model_validate(config), shape, classes)


class TestDarts(SpaceSuite):
    make = staticmethod(lambda: make(nodes=3, layers=3, channels=4))
    make_small = staticmethod(
        lambda: make(nodes=1, layers=3, channels=2, ops=("skip_connect", "sep_conv_3x3", "none"))
    )
    make_exported = staticmethod(lambda: make(nodes=2, layers=3, channels=2, ops=(*OPS, *MORE_OPS)))


class TestDartsFinal(SpaceSuite):
    make = staticmethod(
        lambda: make(form="final", nodes=3, layers=3, channels=4, auxiliary=True, drop_path=0.2)
    )
    make_small = staticmethod(
        lambda: make(
            form="final", nodes=1, layers=3, channels=2, ops=("skip_connect", "max_pool_3x3")
        )
    )
    make_exported = staticmethod(
        lambda: make(
            (3, 17, 17),
            form="final",
            nodes=2,
            layers=3,
            channels=2,
            drop_path=0.2,
            stem="imagenet",
            normal_concat=(1, 2, 3),
            reduce_concat=(0, 3),
        )
    )


def published(name, **changes):
    found = Darts.published()[name]
    config = Darts.Config.model_validate({**found.settings, **changes})
    return Darts(config, found.input_shape, found.classes).graph(found.architecture)


def test_size_counts_ordered_pairs_of_inputs_and_ops():
    assert make().size() == (7**8 * math.factorial(5) ** 2) ** 2


def test_published_depths_and_widths():
    """Reductions at 6 and 13 of 20; 36, 72, 144 channels; stem of 108; outputs of four nodes."""
    specs = published("darts_v2").weight_specs()
    assert specs["stem/conv/weight"].shape == (108, 3, 3, 3)
    widths = [specs[f"cell{i}/last/bn/scale"].shape[0] for i in range(20)]
    assert widths == [36] * 6 + [72] * 7 + [144] * 7
    assert [i for i in range(20) if f"cell{i}/before/even/weight" in specs] == [7, 14]
    assert specs["head/linear/weight"].shape == (10, 576)
    assert specs["auxiliary/full/conv/weight"].shape == (768, 128, 2, 2)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("darts_v1", 3_169_414),
        ("darts_v2", 3_349_342),
        ("darts_v2_imagenet", 4_718_752),
        ("pc_darts", 3_634_678),
        ("pc_darts_imagenet", 5_342_464),
        ("pdarts", 3_433_798),
        ("nasnet_a", 3_061_738),
        ("amoebanet_a", 3_145_078),
    ],
)
def test_counts_are_those_of_the_authors_code(name, count):
    """What NetworkCIFAR and NetworkImageNet of quark0/darts have for these genotypes."""
    assert params(published(name)) == count


@pytest.mark.parametrize(
    ("name", "count"),
    [("darts_v2_imagenet", 529_911_552), ("pc_darts_imagenet", 581_627_328)],
)
def test_macs_are_those_of_the_authors_code(name, count):
    """What PyTorch's FLOP counter says of NetworkImageNet of quark0/darts, halved."""
    assert macs(published(name)) == count


def test_drop_path_has_one_rate_and_spares_identities_only():
    graph = published("darts_v2")
    rates = [node.op.rate for node in graph.nodes if isinstance(node.op, DropPath)]
    assert set(rates) == {0.2}
    # Two of eight ops of the normal cell pass on, three of the reduction cell, all from nodes.
    assert len(rates) == 18 * 6 + 2 * 5
    strided = published("darts_v1", layers=3)
    dropped = {strided.nodes[n.inputs[0]].op for n in strided.nodes if isinstance(n.op, DropPath)}
    assert not any(isinstance(op, FactorizedReduction) for op in dropped)  # none reads an input


def test_a_skip_from_an_input_of_a_reduction_cell_is_a_factorised_reduction_and_dropped():
    genotype = "Genotype(normal=[('skip_connect', 0), ('skip_connect', 1)], normal_concat=[2], "
    genotype += "reduce=[('skip_connect', 0), ('skip_connect', 1)], reduce_concat=[2])"
    space = make(nodes=1, layers=3, channels=4, drop_path=0.2, form="final")
    graph = space.graph(from_genotype(genotype))
    reductions = [
        i
        for i, node in enumerate(graph.nodes)
        if isinstance(node.op, FactorizedReduction) and "/node0/" in node.weights
    ]
    assert len(reductions) == 4
    dropped = [node.inputs[0] for node in graph.nodes if isinstance(node.op, DropPath)]
    assert dropped == reductions


def test_pools_are_normalised_in_the_search_only():
    genotype = "Genotype(normal=[('max_pool_3x3', 0), ('avg_pool_3x3', 1)], normal_concat=[2], "
    genotype += "reduce=[('max_pool_3x3', 0), ('avg_pool_3x3', 1)], reduce_concat=[2])"
    for form, expected in (("search", 6), ("final", 0)):
        specs = make(nodes=1, layers=3, channels=4, form=form).graph(from_genotype(genotype))
        assert sum("_pool_3x3/bn/scale" in name for name in specs.weight_specs()) == expected


def test_neither_the_head_nor_drop_path_changes_what_is_exported():
    plain, trained = published("darts_v2", auxiliary=False, drop_path=0.0), published("darts_v2")
    assert trained.inference().weight_specs() == plain.weight_specs()


def test_an_edge_has_the_same_weights_in_either_slot():
    texts = [
        "Genotype(normal=[('sep_conv_3x3', {}), ('dil_conv_3x3', {})], normal_concat=[2], "
        "reduce=[('skip_connect', 0), ('skip_connect', 1)], reduce_concat=[2])".format(*states)
        for states in ((0, 1), (0, 0), (1, 1))
    ]
    texts.append(
        texts[0]
        .replace("('sep_conv_3x3', 0), ('dil_conv_3x3', 1)", "{}, {}")
        .format(("dil_conv_3x3", 1), ("sep_conv_3x3", 0))
    )
    space = make(nodes=1, layers=3, channels=4)
    names = [set(space.graph(from_genotype(text)).weight_specs()) for text in texts]
    assert names[0] == names[3]
    assert names[0] != names[1] != names[2]


def test_an_edge_that_is_there_twice_has_two_sets_of_weights():
    text = "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 0)], normal_concat=[2], "
    text += "reduce=[('sep_conv_3x3', 0), ('sep_conv_3x3', 0)], reduce_concat=[2])"
    specs = make(nodes=1, layers=3, channels=4).graph(from_genotype(text)).weight_specs()
    assert "cell0/node0/from0/sep_conv_3x3/stage0/depthwise/weight" in specs
    assert "cell0/node0/from0/sep_conv_3x3/again/stage0/depthwise/weight" in specs


def test_a_mixture_with_gates_on_two_edges_a_node_is_the_derived_network():
    """Gates of one and zero select the edges; the weights are shared by name."""
    genotype = Genotype(
        (("sep_conv_5x5", 1), ("dil_conv_3x3", 0), ("max_pool_3x3", 2), ("none", 0)),
        (2, 3),
        (("skip_connect", 0), ("avg_pool_3x3", 0), ("skip_connect", 2), ("dil_conv_5x5", 1)),
        (2, 3),
    )
    space = make(nodes=2, layers=3, channels=4, ops=("none", *OPS))
    architecture = genotype.architecture
    child, mixture, store = space.graph(architecture), space.mixture(), WeightStore(0)
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    run(mixture, store, images, EVAL)
    with torch.no_grad():
        for layer in range(3):
            edges = genotype.reduce if layer in (1, 2) else genotype.normal
            for i in range(2):
                for state in range(i + 2):
                    gates = store[f"cell{layer}/node{i}/from{state}/gates/weight"]
                    picked = [op for op, j in edges[2 * i : 2 * i + 2] if j == state]
                    gates.copy_(torch.tensor([float(picked.count(op)) for op in space.config.ops]))
    torch.testing.assert_close(
        run(mixture, store, images, EVAL), run(child, store, images, EVAL), rtol=1e-4, atol=1e-5
    )


def test_a_trained_final_network_is_exported_without_its_auxiliary_head():
    """Two steps with drop-path and the auxiliary loss, then ONNX Runtime agrees."""
    found = Darts.published()["darts_v2"]
    small = {**found.settings, "channels": 4, "layers": 3}
    graph = make((3, 16, 16), **small).graph(found.architecture)
    store, generator = WeightStore(0), torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 16, 16, generator=generator)
    trainer = Trainer(store, OptimiserConfig(), epochs=2)
    for epoch in (0.5, 1.5):
        trainer.step([graph], (images, torch.arange(8)), epoch, TRAIN)
    assert "auxiliary/linear/weight" in store
    weights = {name: value.detach().numpy() for name, value in store.state().items()}
    model = to_onnx(graph, weights)
    assert not any("auxiliary" in each.name for each in model.graph.initializer)

    def reference(x):
        with torch.no_grad():
            return run(graph, store, torch.from_numpy(x), EVAL).numpy()

    assert parity(model, reference, images.numpy()).holds


@pytest.mark.parametrize("name", GENOTYPES)
def test_genotypes_of_the_public_code_survive_the_round_trip(name):
    genotype = Genotype.parse(GENOTYPES[name])
    architecture = from_genotype(GENOTYPES[name])
    concat = (genotype.normal_concat, genotype.reduce_concat)
    text = to_genotype(architecture, *concat)
    assert Genotype.parse(text) == genotype
    assert "".join(GENOTYPES[name].split())[:160] == "".join(text.split())[:160]
    config = Darts.Config(**genotype_settings(GENOTYPES[name]), layers=3, channels=4)
    Darts(config, (3, 8, 8), 10).graph(architecture)


def test_a_genotype_is_printed_as_darts_prints_it():
    text = (
        "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=range(2, 3), "
        "reduce=[('max_pool_3x3', 1), ('none', 0)], reduce_concat=range(2, 3))"
    )
    assert to_genotype(from_genotype(text)) == text


def test_the_pairs_of_a_node_may_be_bracketed_and_the_genotype_named():
    flat = "Genotype(normal=[('a', 0), ('b', 1)], normal_concat=[2], reduce=[('a', 0), ('b', 1)], "
    flat += "reduce_concat=range(2, 3))"
    nested = flat.replace("[('a', 0), ('b', 1)]", "[[('a', 0), ('b', 1)]]")
    assert Genotype.parse(f"X = {nested}") == Genotype.parse(f"genotypes.{flat}")


@st.composite
def _genotypes(draw):
    nodes = draw(st.integers(1, 5))

    def cell():
        return tuple(
            (draw(st.sampled_from((*OPS, *MORE_OPS))), draw(st.integers(0, place // 2 + 1)))
            for place in range(2 * nodes)
        )

    def concat():
        states = draw(st.sets(st.integers(0, nodes + 1), min_size=1))
        return tuple(sorted(states))

    return Genotype(cell(), concat(), cell(), concat())


@settings(max_examples=100, deadline=None)
@given(_genotypes())
def test_any_genotype_survives_text_and_architecture(genotype):
    assert Genotype.parse(str(genotype)) == genotype
    assert from_genotype(str(genotype)) == genotype.architecture
    concat = (genotype.normal_concat, genotype.reduce_concat)
    assert Genotype.of(genotype.architecture, *concat) == genotype
    assert to_genotype(genotype.architecture, *concat) == str(genotype)
    Darts.Config(**genotype.settings)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_no_text_does_more_than_raise_an_error(text):
    with pytest.raises(UserInputError):
        Genotype.parse(text)


GOOD = "Genotype(normal=[('a', 0), ('b', 1)], normal_concat=[2], reduce=[('a', 0), ('b', 1)], "
GOOD += "reduce_concat=range(2, 3))"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Genotype(", "print(", "a call of print"),
        ("normal_concat=[2], ", "", "has the fields"),
        ("('a', 0)", "__import__('os')", "not written out"),
        ("('a', 0)", "('a', 2)", "earlier state"),
        ("('a', 0)", "('a', True)", "earlier state"),
        ("[('a', 0), ('b', 1)]", "[('a', 0)]", "not two a node"),
        ("range(2, 3)", "range(0, 10**9)", "not written out"),
        ("range(2, 3)", "range(0, 1000000000)", "too long"),
        ("range(2, 3)", "range(2, 9)", "names a state above"),
        ("[2]", "[3, 2]", "ascending"),
    ],
)
def test_a_wrong_genotype_says_what_is_wrong(old, new, message):
    Genotype.parse(GOOD)
    assert old in GOOD
    with pytest.raises(UserInputError, match=message):
        Genotype.parse(GOOD.replace(old, new))


def test_an_architecture_of_another_space_has_no_genotype():
    from hwnas.spaces.conv_chain import ConvChain

    other = ConvChain(ConvChain.Config(), (1, 8, 8), 10).sample(random.Random(0))
    with pytest.raises(UserInputError, match="DARTS"):
        to_genotype(other)


@pytest.mark.parametrize(
    "mistake", [{"ops": ("conv",)}, {"ops": ()}, {"normal_concat": (6,)}, {"channels": 5}]
)
def test_settings_that_make_no_space_are_refused(mistake):
    with pytest.raises(ValidationError):
        Darts.Config(**mistake)


@pytest.mark.parametrize(("name", "published"), [("darts_v2", 544.0), ("pc_darts", 597.06)])
def test_the_operations_of_the_papers_are_those_of_batch_norms_and_relus_too(name, published):
    """Two for an output of a batch norm, one for one of a ReLU: PC-DARTS' 597 M, not DARTS' 574."""
    found = Darts.published()[f"{name}_imagenet"]
    config = Darts.Config.model_validate(dict(found.settings))
    graph = Darts(config, found.input_shape, found.classes).graph(found.architecture).inference()
    each = {BatchNorm: 2, Relu: 1}
    more = sum(each.get(type(op), 0) * math.prod(node.shape) for node, op, _ in graph.primitives())
    assert (macs(graph) + more) / 1e6 == pytest.approx(published, abs=0.05)
