"""Draws the cells of an architecture from its picks.

Read are cells in which node `i` combines two of the states before it, named as in `enas_micro`:
``<cell>/node<i>/input1``, ``input2``, ``op1``, ``op2``. State 0 is the output of the cell before
the previous one, state 1 that of the previous one, state `i + 2` is node `i`; whatever no node
reads is the cell's output, unless the space says otherwise. Recurrent cells: `recurrent_cell`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.report.recurrent_cell import recurrent_drawing
from hwnas.report.results import Drawing, DrawnEdge, DrawnNode

_NAME = re.compile(r"(?P<cell>.+)/node(?P<node>\d+)/(?P<part>input1|input2|op1|op2)")
_INPUTS = ("cell before the previous", "previous cell")

_Node = tuple[int, int, str, str]


def cell_drawings(
    answers: Mapping[str, Any], outputs: Mapping[str, Sequence[int]] | None = None
) -> list[Drawing]:
    """Return one drawing for each cell among the picks; none where they are of another form.

    Args:
        answers: The picks.
        outputs: By cell, the states that make its output; those that no node reads where absent.
    """
    found: dict[str, dict[int, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for name, answer in answers.items():
        match = _NAME.fullmatch(name)
        if match is not None:
            found[match["cell"]][int(match["node"])][match["part"]] = answer
    cells = {name: _cell(parts) for name, parts in found.items()}
    recurrent = recurrent_drawing(answers, (outputs or {}).get(""))
    return [
        *([recurrent] if recurrent else []),
        *(
            _drawing(f"{name} cell", cell, (outputs or {}).get(name))
            for name, cell in cells.items()
            if cell
        ),
    ]


def _cell(parts: Mapping[int, Mapping[str, Any]]) -> list[_Node]:
    """Return the nodes of a cell in order; nothing if any of it is missing or out of range."""
    nodes = []
    for index in range(len(parts)):
        part = parts.get(index, {})
        sources = [part.get("input1"), part.get("input2")]
        if not all(isinstance(each, int) and 0 <= each < index + 2 for each in sources):
            return []
        if not {"op1", "op2"} <= part.keys():
            return []
        nodes.append((part["input1"], part["input2"], str(part["op1"]), str(part["op2"])))
    return nodes


def _drawing(title: str, cell: list[_Node], outputs: Sequence[int] | None) -> Drawing:
    nodes = [
        DrawnNode(id=str(index), label=label, kind="input") for index, label in enumerate(_INPUTS)
    ]
    edges = []
    read: set[int] = set()
    for index, (first, second, op1, op2) in enumerate(cell):
        state = str(index + len(_INPUTS))
        for side, (source, op) in enumerate(((first, op1), (second, op2))):
            box = f"{state}/{side}"
            nodes.append(DrawnNode(id=box, label=op))
            edges += [
                DrawnEdge(source=str(source), target=box),
                DrawnEdge(source=box, target=state),
            ]
            read.add(source)
        nodes.append(DrawnNode(id=state, label=f"node {index}", kind="join"))
    nodes.append(DrawnNode(id="output", label="output", kind="output"))
    states = range(len(cell) + len(_INPUTS))
    loose = [state for state in states if state not in read] if outputs is None else outputs
    edges += [DrawnEdge(source=str(state), target="output") for state in loose if state in states]
    return Drawing(title=title[:1].upper() + title[1:], nodes=nodes, edges=edges)
