"""What a runtime's treatment of a node may depend on: its role, and its context.

The *role* of a node says what became of it: which layout its output has, and whether a kernel
starts with it or it was absorbed into the kernel before it. Roles follow from the node's op and
from the roles of what it reads. The *context* of a node adds its surroundings. A *coarse* context
describes neighbours by their roles; a *fine* one by their operators too, whatever their roles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from hwnas.latency._canonical import CanonicalGraph


class Role(IntEnum):
    """What became of a node: what it reads, what it writes, and where it is computed."""

    PLAIN = 0  #: reads and writes the ordinary layout
    KERNEL = 1  #: starts a kernel without weights, in the runtime's own layout
    WEIGHTED_KERNEL = 2  #: starts a kernel with weights: others may be absorbed into it
    ABSORBED_ONE = 3  #: absorbed, one operand: an activation
    ABSORBED_MORE = 4  #: absorbed, several operands: a sum
    ABSORBED_WEIGHTS = 5  #: absorbed, weights folded: a batch norm
    UNCLEAR = 6  #: its role does not follow from the roles of its inputs
    FROM_PLAIN = 7  #: starts a kernel that reads the ordinary layout and writes the runtime's own
    TO_PLAIN = 8  #: starts a kernel that reads the runtime's own layout and writes the ordinary


#: By role: 0 for the ordinary layout, 1 for the runtime's own.
_READS = (0, 1, 1, 1, 1, 1, 1, 0, 1)
_WRITES = (0, 1, 1, 1, 1, 1, 1, 1, 0)
_IS_ABSORBED = (False, False, False, True, True, True, True, False, False)
_HAS_WEIGHTS = (False, False, True, False, False, True, False, True, False)


class Reach(NamedTuple):
    """How far and how closely a context looks.

    Attributes:
        down: Steps along the only reader of a tensor.
        up: Steps along the inputs; −1 for the whole graph.
        fine: Whether neighbours are described by their operators.
    """

    down: int
    up: int
    fine: bool


#: From small to large. Chains of up to four fused nodes are covered before the whole graph is.
REACHES = (
    *(Reach(down, up, fine=False) for down, up in ((1, 0), (1, 1), (4, 0), (4, 1), (4, 2))),
    *(Reach(down, up, fine=True) for down, up in ((1, 1), (2, 1), (3, 1), (2, 2), (3, 3), (4, 4))),
    Reach(-1, -1, fine=True),
)
LARGEST = len(REACHES) - 1
#: Where ops with weights start: activations, sums and batch norms are fused into them.
FIRST_WEIGHTED = REACHES.index(Reach(4, 0, fine=False))


def role_key(graph: CanonicalGraph, roles: Sequence[int], index: int) -> tuple[Any, ...]:
    """Return what the role of a node may depend on.

    How often an input is read and how it came about matter only if nothing stops fusion: if all
    inputs have the runtime's own layout and there are at most two.
    """
    node = graph.nodes[index]
    inputs = node.inputs
    if len(inputs) > 2:
        return (node.form_id, *sorted({_WRITES[roles[i]] for i in inputs}))
    if not all(_WRITES[roles[i]] for i in inputs):
        return (node.form_id, *[_WRITES[roles[i]] for i in inputs])
    return (node.form_id, *[(roles[i], fan(graph, i)) for i in inputs])


def roles_of(graph: CanonicalGraph, table: Mapping[tuple[Any, ...], int]) -> list[int] | None:
    """Return the role of each node, or None if one is not in the table."""
    roles: list[int] = []
    for index in range(len(graph.nodes)):
        role = table.get(role_key(graph, roles, index))
        if role is None:
            return None
        roles.append(role)
    return roles


def fan(graph: CanonicalGraph, index: int) -> int:
    """Return 0 for no use, 1 for one, 2 for more, and 3 more for a result of the network."""
    return min(len(graph.consumers[index]), 2) + 3 * graph.is_output[index]


def context(
    graph: CanonicalGraph, roles: Sequence[int], index: int, reach: Reach
) -> tuple[Any, ...]:
    """Return a value that is equal for nodes that look alike within `reach`."""
    node = graph.nodes[index]
    if reach.up < 0:
        return (reach, index, graph.text)
    if reach.fine:
        ups = tuple([_up(graph, roles, i, reach.up) for i in node.inputs])
        return (reach, node.form_id, roles[index], ups, _down(graph, roles, index, reach.down))
    if reach.up == 0:
        inputs: tuple[Any, ...] = ()
    elif reach.up == 1:
        inputs = tuple([_WRITES[roles[i]] for i in node.inputs])
    else:
        inputs = tuple([(roles[i], fan(graph, i)) for i in node.inputs])
    below = (_readers(graph, roles, index),) if reach.down else ()
    if reach.down > 1:
        below += _absorbed_below(graph, roles, index, reach)
    return (reach, node.form_id, roles[index], inputs, below)


def _readers(graph: CanonicalGraph, roles: Sequence[int], index: int) -> tuple[int, ...]:
    """Describe who reads a tensor: how many, and which layouts they have."""
    reads = fan(graph, index)
    readers = graph.consumers[index]
    if reads != 1:
        return (reads, *sorted({_READS[roles[i]] for i in readers}))
    role = roles[readers[0]]
    return (reads, role if _IS_ABSORBED[role] else _READS[role])


def _absorbed_below(
    graph: CanonicalGraph, roles: Sequence[int], index: int, reach: Reach
) -> tuple[Any, ...]:
    """Describe what is absorbed into the kernel that a node starts."""
    chain: list[Any] = []
    for _ in range(reach.down):
        if fan(graph, index) != 1:
            break
        reader = graph.consumers[index][0]
        if not _IS_ABSORBED[roles[reader]]:
            break
        node = graph.nodes[reader]
        others = [(at, i) for at, i in enumerate(node.inputs) if i != index]
        partners: tuple[tuple[int, ...], ...]
        if reach.up < 1:
            partners = tuple([(at, int(_can_absorb(graph, roles, i))) for at, i in others])
        else:
            partners = tuple([(at, roles[i], fan(graph, i)) for at, i in others])
        chain.append((node.form.kind, roles[reader], partners))
        index = reader
    return tuple(chain)


def _can_absorb(graph: CanonicalGraph, roles: Sequence[int], index: int) -> bool:
    return _HAS_WEIGHTS[roles[index]] and fan(graph, index) == 1


def _up(graph: CanonicalGraph, roles: Sequence[int], index: int, steps: int) -> tuple[Any, ...]:
    if steps == 0:
        return (roles[index],)
    node = graph.nodes[index]
    inputs = tuple([_up(graph, roles, i, steps - 1) for i in node.inputs])
    return (node.form.kind, roles[index], fan(graph, index), inputs)


def _down(graph: CanonicalGraph, roles: Sequence[int], index: int, steps: int) -> tuple[Any, ...]:
    reads = fan(graph, index)
    if steps == 0 or reads == 0:
        return (reads,)
    readers = graph.consumers[index]
    if reads != 1:
        return (reads, *sorted({(graph.nodes[i].form.kind, roles[i]) for i in readers}))
    reader = readers[0]
    others = tuple(
        [
            (at, _up(graph, roles, i, steps - 1))
            for at, i in enumerate(graph.nodes[reader].inputs)
            if i != index
        ]
    )
    seen = (reads, graph.nodes[reader].form.kind, roles[reader], others)
    return (*seen, _down(graph, roles, reader, steps - 1))
