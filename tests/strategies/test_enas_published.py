"""The controller against its published equations, written once more in numpy.

Source of the equations: melodyguan/enas, `src/cifar10/micro_controller.py`,
`general_controller.py` and `src/common_ops.py` (gate order of the LSTM).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from hwnas.spaces import SPACES
from hwnas.strategies import Scored
from hwnas.strategies._controller import Rollout
from hwnas.strategies.enas import PUBLISHED, Enas
from hwnas.testing.strategies import ToySpace

OPS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def log_softmax(x):
    return x - x.max() - np.log(np.exp(x - x.max()).sum())


@dataclass
class MicroController:
    """`cells`: nodes of a cell. Weights: lstm [2h, 4h], g, emb, soft, bias, w1, w2, v."""

    lstm: np.ndarray
    g: np.ndarray
    emb: np.ndarray
    soft: np.ndarray
    bias: np.ndarray
    w1: np.ndarray
    w2: np.ndarray
    v: np.ndarray
    cells: int
    tanh_constant: float = 1.10
    op_tanh_reduce: float = 2.5
    temperature: float | None = None
    logits: list[np.ndarray] = field(default_factory=list)

    def both_cells(self, normal, reduction):
        """Logits of all decisions, in order; each cell is (index1, index2, op1, op2) per node."""
        self.logits = []
        size = len(self.g)
        state = self.cell(normal, np.zeros(size), np.zeros(size), use_bias=True)
        self.cell(reduction, *state, use_bias=False)
        return self.logits

    def step(self, x, c, h):
        ifog = np.concatenate([x, h]) @ self.lstm
        i, f, o, g = np.split(ifog, 4)
        c = sigmoid(i) * np.tanh(g) + sigmoid(f) * c
        return c, sigmoid(o) * np.tanh(c)

    def cell(self, choices, c, h, *, use_bias):
        anchors, anchors_w1 = [], []
        x = self.g
        for _ in range(2):
            c, h = self.step(x, c, h)
            anchors.append(np.zeros_like(h))
            anchors_w1.append(h @ self.w1)
        for node in range(self.cells):
            index1, index2, op1, op2 = choices[node]
            for index in (index1, index2):
                c, h = self.step(x, c, h)
                query = np.tanh(np.stack(anchors_w1[: node + 2]) + h @ self.w2) @ self.v
                if self.temperature is not None:
                    query = query / self.temperature
                self.logits.append(self.tanh_constant * np.tanh(query))
                x = anchors[index]
            for op in (op1, op2):
                c, h = self.step(x, c, h)
                logits = h @ self.soft + self.bias
                if self.temperature is not None:
                    logits = logits / self.temperature
                logits = self.tanh_constant / self.op_tanh_reduce * np.tanh(logits)
                if use_bias:
                    logits = logits + np.array([0.25, 0.25, -0.25, -0.25, -0.25])
                self.logits.append(logits)
                x = self.emb[op]
            c, h = self.step(x, c, h)
            anchors.append(h)
            anchors_w1.append(h @ self.w1)
            x = self.g
        return c, h


class Micro(ToySpace):
    """The picks of `enas_micro`, in the published order."""

    nodes = 5

    def picks(self, pick):
        for cell in ("normal", "reduction"):
            for i in range(self.nodes):
                for side in ("1", "2"):
                    pick.predecessor(f"{cell}/node{i}/input{side}", i + 2)
                for side in ("1", "2"):
                    pick.one_of(f"{cell}/node{i}/op{side}", OPS)


class Macro(ToySpace):
    """The picks of the macro space: op, then skips, for each layer."""

    layers = 6

    def picks(self, pick):
        for i in range(self.layers):
            pick.one_of(f"layer{i}/op", OPS)
            pick.predecessors(f"layer{i}/skips", i)


def test_the_shipped_space_asks_in_the_published_order():
    space = SPACES.get("enas_micro")
    assert space(space.Config(), (3, 32, 32), 10).decisions() == Micro().decisions()


def test_the_shipped_macro_space_asks_in_the_published_order():
    space = SPACES.get("enas_macro")
    shipped = space(space.Config(layers=Macro.layers, channels=2), (3, 8, 8), 10).decisions()
    asked = [(each.name, each.kind, each.options) for each in shipped if each.kind != "one_of"]
    assert [each.name for each in shipped] == [each.name for each in Macro().decisions()]
    assert asked == [
        (each.name, each.kind, each.options)
        for each in Macro().decisions()
        if each.kind != "one_of"
    ]


def strategy(space, which, **changes):
    config = Enas.Config(**{**PUBLISHED[which], "dtype": "float64", "lstm_size": 16, **changes})
    return Enas(config, space, seed=5)


def record(enas, architecture):
    """Logits of each decision when `architecture` is replayed."""
    rollout = Rollout(enas._learner.policy, 1)
    seen = []

    def choose(decision, _):
        answer = architecture[decision.name]
        if decision.kind == "predecessors":
            return torch.tensor([[int(i in answer) for i in range(len(decision.options))]])
        return torch.tensor([decision.encode(answer)])

    for decision in enas.space.decisions():
        logits, _ = rollout.step(decision, choose)
        seen.append(logits[0].detach().numpy())
    return seen


def enlarged(enas, factor=10.0):
    """Weights by the published names, made larger so that a wrong equation shows."""
    record(enas, enas.ask([0])[0])  # makes all weights
    tensors = enas._learner.weights.tensors
    with torch.no_grad():
        for name, tensor in tensors.items():
            if not name.endswith("bias"):
                tensor.mul_(factor)
    arrays = {name.split("/")[-1]: tensor.detach().numpy() for name, tensor in tensors.items()}
    return {
        "lstm": arrays["lstm"],
        "g": arrays["start"][0],
        "emb": arrays["embedding"],
        "soft": arrays.get("soft"),
        "bias": arrays.get("bias", np.zeros(len(OPS))),
        "w1": arrays["w1"],
        "w2": arrays["w2"],
        "v": arrays["v"],
    }


def cell_of(architecture, name, nodes):
    picks = ("input1", "input2", "op1", "op2")
    answers = [[architecture[f"{name}/node{i}/{p}"] for p in picks] for i in range(nodes)]
    return [(a, b, OPS.index(c), OPS.index(d)) for a, b, c, d in answers]


@pytest.mark.parametrize("temperature", [None, 5.0])
def test_micro_logits_are_the_published_ones_step_by_step(temperature):
    enas = strategy(Micro(), "micro", temperature=temperature)
    weights = enlarged(enas)
    np.testing.assert_array_equal(weights["bias"], [10, 10, 0, 0, 0])
    published = MicroController(**weights, cells=Micro.nodes, temperature=temperature)
    for architecture in enas.ask(range(4)):
        cells = [cell_of(architecture, name, Micro.nodes) for name in ("normal", "reduction")]
        expected = published.both_cells(*cells)
        actual = record(enas, architecture)
        assert len(actual) == len(expected) == 40
        for ours, theirs in zip(actual, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_log_probability_and_entropy_of_an_architecture_are_the_published_sums():
    enas = strategy(Micro(), "micro")
    published = MicroController(**enlarged(enas), cells=Micro.nodes)
    architectures = enas.ask(range(3))
    score = enas._learner.policy.score(enas.space.decisions(), architectures)
    for i, architecture in enumerate(architectures):
        cells = [cell_of(architecture, name, Micro.nodes) for name in ("normal", "reduction")]
        logs = [log_softmax(logits) for logits in published.both_cells(*cells)]
        indices = [d.encode(architecture[d.name]) for d in enas.space.decisions()]
        chosen = np.array([each[index] for each, index in zip(logs, indices, strict=True)])
        assert score.log_prob[i].item() == pytest.approx(chosen.sum(), abs=1e-12)
        policy = -sum((np.exp(each) * each).sum() for each in logs)
        assert score.entropy[i].item() == pytest.approx(policy, abs=1e-12)
        action = -(np.exp(chosen) * chosen).sum()  # NLL · exp(−NLL), as in general_controller.py
        assert score.action_entropy[i].item() == pytest.approx(action, abs=1e-12)


def macro_by_hand(w, architecture, layers, constant):
    """Logits of `general_controller.py` with whole channels, and its skip penalty per layer."""
    controller = MicroController(**w, cells=0)
    c = h = np.zeros(len(w["g"]))
    x, anchors, keys, logits = w["g"], [], [], []
    for layer in range(layers):
        c, h = controller.step(x, c, h)
        logits.append(constant * np.tanh(h @ w["soft"]))
        x = w["emb"][OPS.index(architecture[f"layer{layer}/op"])]
        c, h = controller.step(x, c, h)
        if layer > 0:
            query = np.tanh(np.stack(keys) + h @ w["w2"]) @ w["v"]
            logits.append(constant * np.tanh(np.stack([-query, query], 1)))
            skip = np.array([float(i in architecture[f"layer{layer}/skips"]) for i in range(layer)])
            x = skip @ np.stack(anchors) / (1 + skip.sum())
        else:
            logits.append(np.zeros((0, 2)))
            x = w["g"]
        anchors.append(h)
        keys.append(h @ w["w1"])
    return logits


def test_macro_logits_and_log_probability_are_the_published_ones():
    enas = strategy(Macro(), "macro")
    weights = enlarged(enas)
    for architecture in enas.ask(range(4)):
        expected = macro_by_hand(weights, architecture, Macro.layers, 1.5)
        for ours, theirs in zip(record(enas, architecture), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
        total = 0.0
        for decision, logits in zip(enas.space.decisions(), expected, strict=True):
            answer = architecture[decision.name]
            if decision.kind == "predecessors":
                total += sum(log_softmax(row)[int(i in answer)] for i, row in enumerate(logits))
            else:
                total += log_softmax(logits)[decision.encode(answer)]
        score = enas._learner.policy.score(enas.space.decisions(), [architecture])
        assert score.log_prob.item() == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("form", ["sigmoid", "probability"])
def test_the_skip_penalty_is_the_divergence_from_the_target(form):
    enas = strategy(Macro(), "macro", skip_form=form)
    weights = enlarged(enas)
    architecture = enas.ask([1])[0]
    skips = [x for x in macro_by_hand(weights, architecture, Macro.layers, 1.5) if x.ndim == 2]
    layers = []
    for logits in skips[1:]:
        # The authors write sigmoid(logit) for the probability; what is sampled is softmax.
        p = sigmoid(logits) if form == "sigmoid" else np.exp([log_softmax(row) for row in logits])
        layers.append((p * np.log(p / np.array([0.6, 0.4]))).sum())
    score = enas._learner.policy.score(enas.space.decisions(), [architecture])
    assert score.skip_penalty.item() == pytest.approx(np.mean(layers), abs=1e-12)


class Recurrent(ToySpace):
    """The picks of `enas_rnn`, its first node fixed or not."""

    def __init__(self, nodes=5, is_first_fixed=True):
        super().__init__()
        self.nodes, self.is_first_fixed = nodes, is_first_fixed

    def picks(self, pick):
        if not self.is_first_fixed:
            pick.one_of("node0/activation", OPS[:4])
        for i in range(1, self.nodes + self.is_first_fixed):
            pick.predecessor(f"node{i}/previous", i)
            pick.one_of(f"node{i}/activation", OPS[:4])


@pytest.mark.parametrize("is_first_fixed", [True, False])
def test_the_shipped_recurrent_space_asks_in_the_published_order(is_first_fixed):
    space = SPACES.get("enas_rnn")
    first = "tanh" if is_first_fixed else "searched"
    shipped = space(space.Config(nodes=5, hidden=4, first_node=first), (3,), 7).decisions()
    toy = Recurrent(5, is_first_fixed).decisions()
    assert [(d.name, d.kind, d.count) for d in shipped] == [(d.name, d.kind, d.count) for d in toy]


def language_by_hand(w, architecture, nodes):
    """Logits of enas_lm's `controller.py`; where its first node is asked for, of that step too."""
    controller = MicroController(**w, cells=0)
    size = len(w["g"])
    c = h = np.zeros(size)
    x, logits = w["g"], []
    anchors, keys = [np.zeros(size)], [np.zeros(size)]
    if "node0/activation" in architecture:
        c, h = controller.step(x, c, h)
        logits.append(2.25 * np.tanh(w["emb"] @ h / 5))
        x = w["emb"][OPS.index(architecture["node0/activation"])]
        anchors, keys = [h], [h @ w["w1"]]
    for node in range(1, nodes):
        c, h = controller.step(x, c, h)
        query = np.tanh(np.stack(keys) + h @ w["w2"]) @ w["v"]
        distance = node - np.arange(node)
        logits.append(2.25 * np.tanh(query / 5) - distance**2 / 6)
        anchors.append(h)
        keys.append(h @ w["w1"])
        previous = architecture[f"node{node}/previous"]
        x = anchors[previous] / (0.1 + node - previous)
        c, h = controller.step(x, c, h)
        logits.append(2.25 * np.tanh(w["emb"] @ h / 5))
        x = w["emb"][OPS.index(architecture[f"node{node}/activation"])]
    return logits


@pytest.mark.parametrize("is_first_fixed", [True, False])
def test_recurrent_logits_and_log_probability_are_those_of_enas_lm(is_first_fixed):
    space = Recurrent(5, is_first_fixed)
    enas = strategy(space, "language")
    weights = enlarged(enas, 300.0)
    architectures = enas.ask(range(4))
    score = enas._learner.policy.score(space.decisions(), architectures)
    for i, architecture in enumerate(architectures):
        expected = language_by_hand(weights, architecture, 5 + is_first_fixed)
        for ours, theirs in zip(record(enas, architecture), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
        chosen = [
            log_softmax(logits)[decision.encode(architecture[decision.name])]
            for decision, logits in zip(space.decisions(), expected, strict=True)
        ]
        assert score.log_prob[i].item() == pytest.approx(sum(chosen), abs=1e-12)


def test_the_baseline_starts_anew_after_so_many_updates():
    space = Recurrent(3)
    settings = {"samples_per_update": 2, "baseline_start": "first_reward", "entropy_weight": 0.0}
    enas = strategy(space, "language", baseline_every=2, baseline_decay=0.9, **settings)
    baselines = []
    for update in range(4):
        ids = range(2 * update, 2 * update + 2)
        reward = float(10**update)
        told = zip(ids, enas.ask(ids), strict=True)
        enas.tell([Scored(i, architecture, reward) for i, architecture in told])
        baselines.append(enas.diagnostics()["baseline"])
    assert baselines == pytest.approx([1, 10 - 0.81 * 9, 100, 1000 - 0.81 * 900])


def test_the_paper_and_the_code_differ_in_the_skip_penalty():
    """At p(skip) = 0.4 the paper's penalty is 0; the code's is not, as σ(l) ≠ softmax(−l, l)."""
    logit = 0.5 * np.log(0.4 / 0.6)  # softmax([−l, l]) = [0.6, 0.4]
    logits = torch.tensor([[[-logit, logit]]])
    penalties = {
        form: strategy(Macro(), "macro", skip_form=form)._learner.policy._skip_penalty(logits)
        for form in ("probability", "sigmoid")
    }
    assert penalties["probability"].item() == pytest.approx(0, abs=1e-12)
    assert penalties["sigmoid"].item() > 0.003


def test_sampled_answers_follow_the_policy():
    """Frequencies of the first decisions agree with the exponentials of their logits."""
    enas = strategy(ToySkipsOnly(), "macro")
    enlarged(enas)
    asked = enas.ask(range(2000))
    for index, name in ((0, "layer0/op"), (2, "layer1/op")):
        decision = enas.space.decisions()[index]
        same_past = [a for a in asked if index == 0 or a["layer0/op"] == asked[0]["layer0/op"]]
        expected = np.exp(log_softmax(record(enas, same_past[0])[index]))
        counts = np.bincount([decision.encode(a[name]) for a in same_past], minlength=len(OPS))
        error = np.abs(counts / len(same_past) - expected)
        assert (error < 4 * np.sqrt(0.25 / len(same_past))).all()


class ToySkipsOnly(Macro):
    layers = 2


def test_decisions_with_the_same_options_share_their_weights():
    enas = strategy(Micro(), "micro")
    enas.ask([0])
    names = set(enas._learner.weights.tensors)
    assert len([name for name in names if name.endswith("/embedding")]) == 1
    assert {"lstm", "start", "attention/w1", "attention/w2", "attention/v"} < names


def test_start_weights_are_uniform_in_the_published_range():
    enas = strategy(Micro(), "micro", lstm_size=64)
    enas.ask([0])
    lstm = enas._learner.weights.tensors["lstm"].detach().numpy()
    assert lstm.shape == (128, 256)
    assert np.abs(lstm).max() <= 0.1
    assert lstm.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.02)
