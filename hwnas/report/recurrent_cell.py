"""Draws the recurrent cell of `enas_rnn` from its picks.

Its picks are ``node<i>/activation``, for node 0 too unless the space gives it, and, for the nodes
behind it, ``node<i>/previous``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.report.results import Drawing, DrawnEdge, DrawnNode

_NAME = re.compile(r"node(?P<node>\d+)/(?P<part>previous|activation)")


def recurrent_drawing(
    answers: Mapping[str, Any], outputs: Sequence[int] | None = None
) -> Drawing | None:
    """Return the cell among the picks, or None where they are of another form.

    Args:
        answers: The picks.
        outputs: The nodes that are averaged; those that no node reads if None.
    """
    previous: dict[int, Any] = {}
    activations: dict[int, str] = {}
    for name, answer in answers.items():
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        target: dict[int, Any] = previous if match["part"] == "previous" else activations
        target[int(match["node"])] = answer
    nodes = range(1, len(previous) + 1)
    is_whole = set(previous) == set(nodes) and set(activations) - {0} == set(nodes)
    if not previous or not is_whole:
        return None
    if any(not isinstance(previous[i], int) or not 0 <= previous[i] < i for i in nodes):
        return None
    drawn = [
        DrawnNode(id="x", label="word", kind="input"),
        DrawnNode(id="h", label="state", kind="input"),
        *(DrawnNode(id=str(i), label=f"{i}: {activations.get(i, 'first')}") for i in (0, *nodes)),
        DrawnNode(id="output", label="average", kind="output"),
    ]
    edges = [("x", "0"), ("h", "0"), *((str(previous[i]), str(i)) for i in nodes)]
    read = set(previous.values())
    ends = [i for i in (0, *nodes) if i not in read] if outputs is None else outputs
    edges += [(str(i), "output") for i in ends]
    return Drawing(
        title="Recurrent cell",
        nodes=drawn,
        edges=[DrawnEdge(source=source, target=target) for source, target in edges],
    )
