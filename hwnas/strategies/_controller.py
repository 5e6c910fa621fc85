"""The controller of ENAS: an LSTM that answers one decision after the other.

Equations of the authors' `micro_controller.py` and `general_controller.py`, for `N` architectures
with the same decisions at once; `H` is the size of the LSTM. Each decision is one LSTM step, whose
output ``h`` gives the logits and whose next input comes from the answer:

================  ==========================================  ===================================
pick              logits                                      next input
================  ==========================================  ===================================
one_of, integer   h W_soft + b_soft                           embedding of the answer
predecessor       qᵢ = v · tanh(aᵢ W₁ + h W₂)                 anchor of the answer
predecessors      [−qᵢ, qᵢ] for each i                        Σ chosen anchors / (1 + their number)
================  ==========================================  ===================================

With `distance_penalty` p, the logit of the predecessor i of node n then loses ``(n − i)² / p`` and
its anchor is divided by ``0.1 + n − i``.

Logits are divided by the temperature and squashed by ``tanh_constant · tanh(·)``. Decisions with
the same options share ``embedding``, ``W_soft`` and ``b_soft``.

**Anchors** stand for the earlier nodes. They are made when first needed: `predecessor(n)` knows of
n nodes, so while there are fewer anchors, an LSTM step is taken. A node that came before any pick
of its scope is an input: its anchor is zero, its key ``h W₁`` is not. Any other node has been
picked just now: its anchor is the ``h`` that has read its last answer. After such a step the input
is the start embedding ``g``. `predecessors(n)` is asked after a layer's op, so its own ``h`` is the
anchor of layer n. At a change of scope (normal → reduction cell) the last node of the old scope is
read too, anchors start anew, the input is ``g``, and the LSTM state goes on.

With ``anchors: at_input`` (recurrent cells) no step is taken for an anchor: it is the ``h`` of the
node's first decision. A node without one, such as a fixed first node, has a zero anchor and key.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding, log_softmax

from hwnas.graph.architecture import Answer, Architecture
from hwnas.graph.pick import Decision
from hwnas.strategies._reinforce import Score
from hwnas.strategies.enas import scope_of

if TYPE_CHECKING:
    from hwnas.strategies.enas import Enas

#: Takes a decision and its logits ([N, options], predecessors: [N, n, 2]); gives indices ([N] or
#: [N, n]).
Choose = Callable[[Decision, Tensor], Tensor]


class Weights:
    """The controller's weights by name, each made on first use.

    The start value depends on the seed and the name only, so making one is not a change of state.

    Args:
        seed: Seed of the start values.
        init_range: They are uniform in ± this.
        dtype: Their type.
    """

    def __init__(self, seed: int, init_range: float, dtype: torch.dtype) -> None:
        self.seed = seed
        self.init_range = init_range
        self.dtype = dtype
        self.tensors: dict[str, Tensor] = {}

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Return a weight that starts uniformly at random."""
        if name not in self.tensors:
            digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
            rng = np.random.default_rng(int.from_bytes(digest, "big"))
            self._add(name, rng.uniform(-self.init_range, self.init_range, shape))
        return self.tensors[name]

    def constant(self, name: str, values: Sequence[float]) -> Tensor:
        """Return a weight that starts with the given values."""
        if name not in self.tensors:
            self._add(name, np.array(values))
        return self.tensors[name]

    def _add(self, name: str, value: np.ndarray) -> None:
        # Perhaps made while sampling, but trained later: it must not be an inference tensor.
        with torch.inference_mode(False):
            self.tensors[name] = torch.tensor(value, dtype=self.dtype, requires_grad=True)


class Policy:
    """The distribution over architectures that the controller's weights describe.

    Args:
        config: Sizes and shape of the logits.
        weights: Where the weights are.
    """

    def __init__(self, config: Enas.Config, weights: Weights) -> None:
        self.config = config
        self.weights = weights

    def sample(self, rng: random.Random) -> Callable[[Decision], Answer]:
        """Return a function that draws the answer to one decision after the other."""

        def choose(_: Decision, logits: Tensor) -> Tensor:
            rows = logits.reshape(-1, logits.shape[-1]).tolist()
            drawn = torch.tensor([_draw(row, rng) for row in rows], dtype=torch.long)
            return drawn.reshape(logits.shape[:-1])

        return self._answer_with(choose)

    def most_likely(self) -> Callable[[Decision], Answer]:
        """Return a function that takes the most likely answer at each decision."""
        return self._answer_with(lambda _, logits: logits.argmax(-1))

    def score(self, decisions: Sequence[Decision], architectures: Sequence[Architecture]) -> Score:
        """Return how likely architectures are, with the gradient of the weights.

        Args:
            decisions: What all of them answer, in order.
            architectures: `N` architectures.
        """
        rollout = Rollout(self, len(architectures))
        dtype = self.weights.dtype
        log_prob = entropy = action = penalty = torch.zeros(len(architectures), dtype=dtype)
        penalties = 0

        def choose(decision: Decision, _: Tensor) -> Tensor:
            return torch.stack([_encode(decision, a[decision.name]) for a in architectures])

        for decision in decisions:
            logits, indices = rollout.step(decision, choose)
            if indices.dim() == 2 and indices.shape[1] == 0:
                continue
            logs = log_softmax(logits, -1)
            chosen = logs.gather(-1, indices.unsqueeze(-1)).squeeze(-1)
            log_prob = log_prob + _sum_bits(chosen)
            action = action - _sum_bits(chosen.exp() * chosen)
            entropy = entropy - _sum_bits((logs.exp() * logs).sum(-1))
            if decision.kind == "predecessors":
                penalty = penalty + self._skip_penalty(logits)
                penalties += 1
        return Score(log_prob, entropy, action, penalty / max(penalties, 1))

    def _skip_penalty(self, logits: Tensor) -> Tensor:
        """Return ``Σᵢ KL(pᵢ ‖ target)`` over the earlier nodes of one decision, `[N]`."""
        share = self.config.skip_target
        target = torch.tensor([1 - share, share], dtype=logits.dtype)
        is_paper = self.config.skip_form == "probability"
        p = logits.softmax(-1) if is_paper else logits.sigmoid()
        return (p * (p / target).log()).sum((-1, -2))

    def _answer_with(self, choose: Choose) -> Callable[[Decision], Answer]:
        rollout = Rollout(self, 1)

        def answer(decision: Decision) -> Answer:
            with torch.inference_mode():
                indices = rollout.step(decision, choose)[1][0]
            if decision.kind == "predecessors":
                return tuple(i for i, is_chosen in enumerate(indices.tolist()) if is_chosen)
            return decision.options[int(indices)]

        return answer


class Rollout:
    """One pass of the LSTM over the decisions of `N` architectures.

    Args:
        policy: Whose weights and settings.
        batch: `N`.
    """

    def __init__(self, policy: Policy, batch: int) -> None:
        self.config = policy.config
        self.weights = policy.weights
        size = self.config.lstm_size
        self.lstm = self.weights.uniform("lstm", 2 * size, 4 * size)
        self.start = self.weights.uniform("start", 1, size).expand(batch, size)
        self.input = self.start
        self.cell = torch.zeros(batch, size, dtype=self.weights.dtype)
        self.hidden = self.cell
        self.scope: str | None = None
        self.is_scope_new = True
        self.anchors: list[Tensor] = []
        self.keys: list[Tensor] = []
        self.first: Tensor | None = None  # anchor of a node that was asked for no input

    def step(self, decision: Decision, choose: Choose) -> tuple[Tensor, Tensor]:
        """Answer one decision.

        Returns:
            The logits and the chosen indices, as in `Choose`.
        """
        self._enter(scope_of(decision.name))
        count = len(decision.options)
        is_late = self.config.anchors == "at_input"
        if decision.kind in {"predecessor", "predecessors"}:
            while len(self.anchors) < count:
                self._add_input() if is_late else self._add_node()
        self._advance()
        if is_late and self.is_scope_new:
            self.first = self.hidden
        self.is_scope_new = False
        if decision.kind == "predecessor":
            if is_late and len(self.anchors) == count:
                self._remember(self.hidden)
            logits = self._near(self._squash(self._attention(count), 1.0))
            indices = choose(decision, logits)
            self.input = self._pick_anchors(indices, count)
        elif decision.kind == "predecessors":
            logits, indices = self._step_skips(decision, choose)
        else:
            name = _vocabulary(decision.options)
            logits = self._squash(self._options_logits(decision, name), self.config.op_tanh_reduce)
            constant = self.config.constant_bias.get(self.scope or "")
            if constant is not None:
                bias = [constant.get(str(option), 0.0) for option in decision.options]
                logits = logits + torch.tensor(bias, dtype=logits.dtype)
            indices = choose(decision, logits)
            table = self.weights.uniform(f"{name}/embedding", count, self.config.lstm_size)
            self.input = embedding(indices, table)
        return logits, indices

    def _step_skips(self, decision: Decision, choose: Choose) -> tuple[Tensor, Tensor]:
        count = len(decision.options)
        if count == 0:
            # The first layer has nothing to choose from, and starts the next one as the first.
            logits = self.hidden.new_zeros(len(self.hidden), 0, 2)
            indices = torch.zeros(len(self.hidden), 0, dtype=torch.long)
            self.input = self.start
        else:
            query = self._attention(count)
            logits = self._squash(torch.stack([-query, query], -1), 1.0)
            indices = choose(decision, logits)
            skips = indices.to(self.hidden.dtype)
            anchors = torch.stack(self.anchors[:count], 1)
            total = (skips.unsqueeze(-1) * anchors).sum(1)
            self.input = total / (1 + skips.sum(1, keepdim=True))
        if len(self.anchors) == count:
            self._remember(self.hidden)
        return logits, indices

    def _enter(self, scope: str) -> None:
        if scope == self.scope:
            return
        if self.anchors:
            self._advance()
            self.anchors, self.keys, self.first = [], [], None
            self.input = self.start
        self.scope = scope
        self.is_scope_new = True

    def _add_node(self) -> None:
        self._advance()
        self._remember(torch.zeros_like(self.hidden) if self.is_scope_new else self.hidden)
        self.input = self.start

    def _add_input(self) -> None:
        """Remember a node that has been asked for no input: what picked its op, or nothing."""
        if self.first is not None and not self.anchors:
            self.anchors.append(self.first)
            self.keys.append(self.first @ self._weight("attention/w1"))
            return
        self.anchors.append(torch.zeros_like(self.hidden))
        self.keys.append(torch.zeros_like(self.hidden))

    def _remember(self, anchor: Tensor) -> None:
        self.anchors.append(anchor)
        self.keys.append(self.hidden @ self._weight("attention/w1"))

    def _weight(self, name: str) -> Tensor:
        size = self.config.lstm_size
        return self.weights.uniform(name, size, size)

    def _advance(self) -> None:
        """Take one LSTM step: one layer, no bias, gates in the order input, forget, output, new."""
        size = self.config.lstm_size
        gates = torch.cat([self.input, self.hidden], 1) @ self.lstm
        i, f, o = gates[:, : 3 * size].sigmoid().chunk(3, 1)
        self.cell = i * gates[:, 3 * size :].tanh() + f * self.cell
        self.hidden = o * self.cell.tanh()

    def _pick_anchors(self, indices: Tensor, count: int) -> Tensor:
        if len(indices) == 1:  # sampling: no need to stack
            anchors = self.anchors[int(indices)]
        else:
            anchors = torch.stack(self.anchors, 1)[torch.arange(len(indices)), indices]
        if self.config.distance_penalty is None:
            return anchors
        return anchors / (0.1 + count - indices.to(anchors.dtype)).unsqueeze(1)

    def _near(self, logits: Tensor) -> Tensor:
        """Prefer near nodes, where that is set."""
        if self.config.distance_penalty is None:
            return logits
        distance = torch.arange(logits.shape[1], 0, -1, dtype=logits.dtype)
        return logits - distance.square() / self.config.distance_penalty

    def _attention(self, count: int) -> Tensor:
        query = self.hidden @ self._weight("attention/w2")
        mixed = (torch.stack(self.keys[:count], 1) + query.unsqueeze(1)).tanh()
        return mixed @ self.weights.uniform("attention/v", self.config.lstm_size)

    def _options_logits(self, decision: Decision, name: str) -> Tensor:
        count, size = len(decision.options), self.config.lstm_size
        if self.config.tied_embedding:
            logits = self.hidden @ self.weights.uniform(f"{name}/embedding", count, size).T
        else:
            logits = self.hidden @ self.weights.uniform(f"{name}/soft", size, count)
        if not self.config.has_bias:
            return logits
        initial = [self.config.initial_bias.get(str(option), 0.0) for option in decision.options]
        return logits + self.weights.constant(f"{name}/bias", initial)

    def _squash(self, logits: Tensor, reduce: float) -> Tensor:
        if self.config.temperature is not None:
            logits = logits / self.config.temperature
        if self.config.tanh_constant is not None:
            logits = (self.config.tanh_constant / reduce) * logits.tanh()
        return logits


@lru_cache(maxsize=1024)
def _vocabulary(options: tuple[Answer, ...]) -> str:
    """Name a list of options; decisions with the same list share their weights."""
    return f"options/{hashlib.sha256(repr(options).encode()).hexdigest()[:12]}"


def _draw(logits: Sequence[float], rng: random.Random) -> int:
    """Draw an index from ``softmax(logits)`` with one random number."""
    largest = max(logits)
    weights = [math.exp(logit - largest) for logit in logits]
    left = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return len(weights) - 1


def _encode(decision: Decision, answer: Answer) -> Tensor:
    """Return the index of an answer, or the bits of a subset, `[n]`."""
    if decision.kind == "predecessors":
        assert isinstance(answer, tuple)
        return torch.tensor([int(i in answer) for i in range(len(decision.options))])
    return torch.tensor(decision.encode(answer))


def _sum_bits(values: Tensor) -> Tensor:
    """Sum over the bits of `predecessors`, where there are any: `[N, n]` or `[N]` to `[N]`."""
    return values.sum(1) if values.dim() == 2 else values
