"""Finds the kernels of a graph without exporting it.

What a runtime makes of a node depends on the node, on the memory layout of what it reads, and on a
small neighbourhood (is there a ReLU to fuse, does anything else read the tensor). The decomposer
*learns* this from networks that the runtime really optimised, in two tables:

1. the layout of a node's output, from its op and the layouts of its inputs;
2. the kernels of a node, from its op, roles, and a neighbourhood.

How large the neighbourhood must be is learned too, for each kind of op: the smallest one that
explains all that the runtime has done so far. When two nodes look alike but became different
kernels, the neighbourhood of that kind grows. A graph with a node that was not seen before is
exported, optimised and learned; nothing is ever guessed. Some graphs with known nodes are checked
against the runtime too (*audits*), because a neighbourhood might still be too small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hwnas.errors import UserInputError
from hwnas.graph import Graph
from hwnas.latency._attribution import observe
from hwnas.latency._canonical import CanonicalGraph, OpForms, canonical
from hwnas.latency._context import (
    FIRST_WEIGHTED,
    LARGEST,
    REACHES,
    Reach,
    Role,
    context,
    role_key,
    roles_of,
)
from hwnas.latency.runtimes import Runtime

Key: TypeAlias = tuple[Any, ...]
Outcome: TypeAlias = tuple[int, ...]

#: Networks that must have been learned before look-ups are trusted without asking the runtime.
MIN_NETWORKS = 24
#: One graph in so many, with all nodes known, is checked against the runtime.
AUDIT_EVERY = 50
#: Canonical graphs that are kept to find the smallest sufficient neighbourhood.
MAX_EXAMPLES = 512


@dataclass(slots=True)
class DecomposerStatistics:
    """How well the cache works.

    Attributes:
        graphs: Graphs asked for.
        learned: Graphs that had to be exported and optimised.
        nodes: Nodes looked up.
        unknown_nodes: Nodes that were not known.
        audits: Graphs with known nodes only that were checked against the runtime.
        audit_failures: … and were decomposed wrongly; each made a neighbourhood grow.
    """

    graphs: int = 0
    learned: int = 0
    nodes: int = 0
    unknown_nodes: int = 0
    audits: int = 0
    audit_failures: int = 0


@dataclass(slots=True)
class _Example:
    graph: CanonicalGraph
    outcomes: list[Outcome]
    roles: list[int]


@dataclass(frozen=True, slots=True)
class Decomposition:
    """The kernels of one graph.

    Attributes:
        kernels: Numbers of its kernels (see `Decomposer.signatures`), with repetitions.
        nodes: For each kernel, the node of the expanded graph that it computes.
    """

    kernels: tuple[int, ...]
    nodes: tuple[int, ...]


@dataclass(slots=True)
class DecomposerState:
    """All that a decomposer has learned, as plain JSON values."""

    forms: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    roles: list[tuple[Key, int]] = field(default_factory=list)
    reaches: dict[str, int] = field(default_factory=dict)
    contexts: list[tuple[Key, Outcome]] = field(default_factory=list)
    networks: int = 0


class Decomposer:
    """Maps graphs to kernels of one runtime.

    Args:
        runtime: The runtime; asked whenever a graph has an unknown node. None restricts to graphs
            whose nodes are all known.
        state: What an earlier decomposer of the same runtime has learned.
        audit_every: One known graph in so many is checked; 0 for none.
    """

    def __init__(
        self,
        runtime: Runtime | None,
        state: DecomposerState | None = None,
        *,
        audit_every: int = AUDIT_EVERY,
    ) -> None:
        state = state or DecomposerState()
        self.runtime = runtime
        self.statistics = DecomposerStatistics()
        self.signatures: list[str] = list(state.signatures)
        self._kernel_ids = {text: i for i, text in enumerate(self.signatures)}
        self._forms = OpForms(state.forms)
        self._roles: dict[Key, int] = {_tuples(key): label for key, label in state.roles}
        self._reaches: dict[str, int] = dict(state.reaches)
        self._contexts: dict[Key, Outcome] = {
            _tuples(key): tuple(value) for key, value in state.contexts
        }
        self._networks = state.networks
        self._is_inherited = state.networks > 0
        self._examples: list[_Example] = []
        self._audit_every = audit_every
        self._since_audit = 0

    @property
    def networks(self) -> int:
        """Networks learned so far, those of the given state included."""
        return self._networks

    def state(self) -> DecomposerState:
        """Return all that was learned."""
        return DecomposerState(
            forms=self._forms.texts,
            signatures=list(self.signatures),
            roles=list(self._roles.items()),
            reaches=dict(self._reaches),
            contexts=list(self._contexts.items()),
            networks=self._networks,
        )

    def decompose(self, graph: Graph) -> Decomposition:
        """Return the kernels of a graph.

        Raises:
            UserInputError: The graph has unknown nodes and there is no runtime to ask.
            DeviceError: The runtime refuses the graph.
        """
        shape = canonical(graph, self._forms)
        self.statistics.graphs += 1
        if self._networks >= MIN_NETWORKS or self.runtime is None:
            outcomes = self._look_up(shape)
            if outcomes is not None and not self._is_due_for_audit():
                return _decomposition(shape, outcomes)
            if outcomes is not None:
                return self._audit(graph, shape, outcomes)
        self.statistics.learned += 1
        return _decomposition(shape, self._learn(graph, shape))

    def learn(self, graph: Graph) -> Decomposition:
        """Ask the runtime about a graph even if all its nodes are known."""
        shape = canonical(graph, self._forms)
        return _decomposition(shape, self._learn(graph, shape))

    def look_up(self, graph: Graph) -> Decomposition | None:
        """Return the kernels of a graph as far as known: None if any node is unknown."""
        shape = canonical(graph, self._forms)
        outcomes = self._look_up(shape)
        return None if outcomes is None else _decomposition(shape, outcomes)

    def _look_up(self, shape: CanonicalGraph) -> list[Outcome] | None:
        roles = roles_of(shape, self._roles)
        self.statistics.nodes += len(shape.nodes)
        if roles is None:
            self.statistics.unknown_nodes += 1
            return None
        contexts = self._contexts
        outcomes = []
        for key in self._keys(shape, roles):
            outcome = contexts.get(key)
            if outcome is None:
                self.statistics.unknown_nodes += 1
                return None
            outcomes.append(outcome)
        return outcomes

    def _keys(self, shape: CanonicalGraph, roles: Sequence[int]) -> Iterator[Key]:
        reaches = self._reaches
        for index, node in enumerate(shape.nodes):
            kind = node.form.kind
            if kind not in reaches:
                reaches[kind] = FIRST_WEIGHTED if node.form.has_weights else 0
            yield context(shape, roles, index, REACHES[reaches[kind]])

    def _is_due_for_audit(self) -> bool:
        self._since_audit += 1
        if self.runtime is None or not self._audit_every or self._since_audit < self._audit_every:
            return False
        self._since_audit = 0
        return True

    def _audit(
        self, graph: Graph, shape: CanonicalGraph, outcomes: Sequence[Outcome]
    ) -> Decomposition:
        truth = self._learn(graph, shape)
        self.statistics.audits += 1
        self.statistics.audit_failures += _multiset(truth) != _multiset(outcomes)
        return _decomposition(shape, truth)

    def _learn(self, graph: Graph, shape: CanonicalGraph) -> list[Outcome]:
        outcomes, observed = self._ask_runtime(graph, shape)
        self._networks += 1
        self._examples.append(_Example(shape, outcomes, observed))
        del self._examples[:-MAX_EXAMPLES]
        if not self._teach_roles(self._examples[-1]):
            self._teach(self._examples[-1])
            return outcomes
        # Roles that contexts were keyed with have become unclear: learn all anew. A role never
        # becomes clear again, so this ends.
        while any(self._teach_roles(example) for example in self._examples):
            pass
        self._contexts.clear()
        for example in self._examples:
            self._teach(example)
        return outcomes

    def _teach_roles(self, example: _Example) -> bool:
        """Enter the roles of a network; return whether an earlier entry was contradicted."""
        has_changed = False
        roles: list[int] = []
        for index, seen in enumerate(example.roles):
            key = role_key(example.graph, roles, index)
            known = self._roles.setdefault(key, seen)
            if known not in {seen, Role.UNCLEAR}:
                self._roles[key] = int(Role.UNCLEAR)
                has_changed = True
            roles.append(self._roles[key])
        return has_changed

    def _teach(self, example: _Example) -> None:
        """Enter the contexts of a network, with larger neighbourhoods where they contradict."""
        roles = roles_of(example.graph, self._roles)
        assert roles is not None
        grown = set()
        for index, key in enumerate(self._keys(example.graph, roles)):
            outcome = example.outcomes[index]
            if self._contexts.setdefault(key, outcome) != outcome:
                grown.add(example.graph.nodes[index].form.kind)
        if grown and self._is_inherited:
            self._start_again()
            return
        for kind in grown:
            self._grow(kind)

    def _start_again(self) -> None:
        """Forget what was loaded: it is contradicted, and the networks behind it are not here.

        A neighbourhood that explains only the networks of this session might be too small for
        those. Look-ups are trusted again after `MIN_NETWORKS` networks.
        """
        self._is_inherited = False
        self._contexts.clear()
        self._networks = len(self._examples)
        for example in self._examples:
            self._teach(example)

    def _grow(self, kind: str) -> None:
        """Enlarge the neighbourhood of a kind until it explains all examples."""
        reach = self._reaches[kind]
        while reach < LARGEST:
            reach += 1
            learned = self._contexts_of(kind, REACHES[reach])
            if learned is not None:
                break
        else:
            learned = self._contexts_of(kind, REACHES[LARGEST]) or {}
        self._reaches[kind] = reach
        # Contexts of the old reach can not match any more: the reach is part of the key.
        self._contexts.update(learned)

    def _contexts_of(self, kind: str, reach: Reach) -> dict[Key, Outcome] | None:
        learned: dict[Key, Outcome] = {}
        for example in self._examples:
            roles = roles_of(example.graph, self._roles)
            assert roles is not None
            for index, node in enumerate(example.graph.nodes):
                if node.form.kind != kind:
                    continue
                key = context(example.graph, roles, index, reach)
                if learned.setdefault(key, example.outcomes[index]) != example.outcomes[index]:
                    return None
        return learned

    def _ask_runtime(self, graph: Graph, shape: CanonicalGraph) -> tuple[list[Outcome], list[int]]:
        """Export and optimise a graph; return each node's kernels and its output's layout."""
        if self.runtime is None:
            raise UserInputError(
                "what the device's runtime makes of this network is not known, and the device "
                "is not here to ask",
                "measure its space there with: hwnas profile",
            )
        owned, roles = observe(self.runtime, graph, shape)
        outcomes = []
        for kernels in owned:
            for signature in kernels:
                if signature not in self._kernel_ids:
                    self._kernel_ids[signature] = len(self.signatures)
                    self.signatures.append(signature)
            outcomes.append(tuple(sorted(self._kernel_ids[each] for each in kernels)))
        return outcomes, roles


def _decomposition(shape: CanonicalGraph, outcomes: Sequence[Outcome]) -> Decomposition:
    pairs = [
        (kernel, shape.source[index])
        for index, outcome in enumerate(outcomes)
        for kernel in outcome
    ]
    return Decomposition(tuple(k for k, _ in pairs), tuple(n for _, n in pairs))


def _multiset(outcomes: Sequence[Outcome]) -> Counter[int]:
    return Counter(kernel for outcome in outcomes for kernel in outcome)


def _tuples(value: Any) -> Any:
    """Turn JSON's lists back into tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
