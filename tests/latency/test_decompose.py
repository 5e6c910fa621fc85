from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import pytest

from hwnas.errors import UserInputError
from hwnas.export.onnx import to_onnx
from hwnas.graph import GraphBuilder
from hwnas.latency import decompose
from hwnas.latency._canonical import OpForms, canonical
from hwnas.latency._context import Role
from hwnas.latency.decompose import Decomposer, DecomposerState
from hwnas.latency.device import Device
from hwnas.latency.kernels import fused_kernels
from hwnas.spaces import SearchSpace
from tests.latency.conftest import graphs


def truth(graph, device) -> Counter[str]:
    return Counter(kernel.signature for kernel in fused_kernels(to_onnx(graph), device.runtime))


def signatures(decomposer, found) -> Counter[str]:
    return Counter(decomposer.signatures[each] for each in found.kernels)


@pytest.mark.parametrize(("space", "networks", "least_known"), [
    ("conv_chain", 60, 12), ("enas_micro", 70, 5),
])  # fmt: skip
def test_look_up_of_unseen_architectures_is_exact(space, networks, least_known, request, device):
    space = request.getfixturevalue(space)
    decomposer = Decomposer(device.runtime, audit_every=0)
    for graph in graphs(space, networks, seed=1):
        decomposer.learn(graph)
    known = 0
    for graph in graphs(space, 20, seed=2):
        found = decomposer.look_up(graph)
        if found is not None:
            known += 1
            assert signatures(decomposer, found) == truth(graph, device)
    assert known >= least_known


def test_a_graph_with_unknown_nodes_is_learned_not_guessed(device: Device, conv_chain: SearchSpace):
    decomposer = Decomposer(device.runtime)
    for graph in graphs(conv_chain, 3, seed=4):
        assert signatures(decomposer, decomposer.decompose(graph)) == truth(graph, device)
    assert decomposer.statistics.learned == 3


def test_known_graphs_are_decomposed_without_export(learned, conv_chain, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("exported")

    monkeypatch.setattr(decompose, "observe", refuse)
    for graph in graphs(conv_chain, 10, seed=1):
        assert learned.decompose(graph).kernels


def test_what_was_learned_survives_json(learned: Decomposer, conv_chain: SearchSpace):
    state = json.loads(json.dumps(asdict(learned.state())))
    again = Decomposer(None, DecomposerState(**state))
    for graph in graphs(conv_chain, 20, seed=1):
        assert again.decompose(graph) == learned.look_up(graph)


def test_without_a_device_an_unknown_graph_is_an_error_not_a_guess(enas_micro: SearchSpace):
    with pytest.raises(UserInputError, match="not known") as error:
        Decomposer(None).decompose(graphs(enas_micro, 1, seed=0)[0])
    assert "hwnas profile" in (error.value.hint or "")


def test_a_neighbourhood_that_is_too_small_grows_until_it_explains_what_the_runtime_does(
    device: Device, conv_chain: SearchSpace
):
    decomposer = Decomposer(device.runtime, audit_every=0)
    decomposer._reaches["Conv"] = 0  # does not see the activation that is fused
    networks = graphs(conv_chain, 20, seed=1)
    for graph in networks:
        decomposer.learn(graph)
    assert decomposer.state().reaches["Conv"] > 0
    for graph in networks:
        assert signatures(decomposer, decomposer.look_up(graph)) == truth(graph, device)


def test_every_kernel_is_attributed_to_a_node_of_the_expanded_graph(learned, conv_chain):
    for graph in graphs(conv_chain, 10, seed=1):
        found = learned.look_up(graph)
        assert len(found.nodes) == len(found.kernels)
        for kernel, node in zip(found.kernels, found.nodes, strict=True):
            if "nchwc::Conv" in learned.signatures[kernel]:
                assert graph.expanded().nodes[node].op.kind == "conv"


def test_a_known_graph_is_audited_now_and_then(device: Device, conv_chain: SearchSpace):
    decomposer = Decomposer(device.runtime, audit_every=2)
    networks = graphs(conv_chain, decompose.MIN_NETWORKS, seed=1)
    for graph in networks:
        decomposer.learn(graph)
    for graph in networks[:6]:
        decomposer.decompose(graph)
    assert decomposer.statistics.audits == 3
    assert decomposer.statistics.audit_failures == 0


def test_repeated_activations_and_dropout_do_not_matter():
    def build(*, twice: bool):
        g = GraphBuilder((16, 8, 8))
        x = g.relu(g.input)
        y = g.relu(g.input) if twice else x
        z = g.sum(g.conv(x, channels=16, weights="a"), g.conv(y, channels=16, weights="b"))
        z = g.global_avg_pool(z)
        return g.finish(g.dropout(z, rate=0.5) if twice else z)

    forms = OpForms()
    assert canonical(build(twice=True), forms).text == canonical(build(twice=False), forms).text


def test_a_runtime_that_contradicts_itself_is_asked_again_and_never_averaged(
    device: Device, conv_chain: SearchSpace, monkeypatch
):
    """The same graph with two outcomes: no neighbourhood explains that, so nothing is known."""
    decomposer = Decomposer(device.runtime, audit_every=0)
    graph = graphs(conv_chain, 1, seed=1)[0]
    decomposer.learn(graph)
    assert decomposer.look_up(graph) is not None
    ask = Decomposer._ask_runtime

    def ask_moody(self, *args):
        outcomes, roles = ask(self, *args)
        return [*outcomes[:-1], (*outcomes[-1], 0)], roles

    monkeypatch.setattr(Decomposer, "_ask_runtime", ask_moody)
    decomposer.learn(graph)
    assert decomposer.look_up(graph) is None


def test_a_role_that_is_contradicted_becomes_unclear_and_look_up_stays_exact(
    device: Device, conv_chain: SearchSpace, monkeypatch
):
    decomposer = Decomposer(device.runtime, audit_every=0)
    networks = graphs(conv_chain, 40, seed=1)
    ask = Decomposer._ask_runtime
    calls = 0

    def ask_with_one_odd_role(self, *args):
        nonlocal calls
        calls += 1
        outcomes, roles = ask(self, *args)
        if calls == 20:
            roles[2] = int(Role.KERNEL) if roles[2] != Role.KERNEL else int(Role.PLAIN)
        return outcomes, roles

    monkeypatch.setattr(Decomposer, "_ask_runtime", ask_with_one_odd_role)
    for graph in networks:
        decomposer.learn(graph)
    assert Role.UNCLEAR in dict(decomposer.state().roles).values()
    known = [(g, decomposer.look_up(g)) for g in networks]
    assert all(found is not None for _, found in known)
    for graph, found in known[:20]:
        assert signatures(decomposer, found) == truth(graph, device)


def test_a_tensor_that_is_added_to_itself_is_decomposed_as_the_runtime_does(device: Device):
    def build(twice: bool):
        g = GraphBuilder((16, 8, 8))
        x = g.conv_bn(g.input, channels=16, kernel=3, weights="a")
        y = x if twice else g.conv_bn(g.input, channels=16, kernel=3, weights="b")
        return g.finish(g.linear(g.global_avg_pool(g.sum(x, y)), features=4, weights="c"))

    decomposer = Decomposer(device.runtime, audit_every=0)
    for graph in (build(False), build(True)):
        decomposer.learn(graph)
    for graph in (build(False), build(True)):
        assert signatures(decomposer, decomposer.look_up(graph)) == truth(graph, device)
