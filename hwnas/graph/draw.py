"""What a drawing of a graph shows: boxes and arrows, as the space added them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from hwnas.graph.graph import Graph
from hwnas.graph.op import Op


@dataclass(frozen=True, slots=True)
class Box:
    """One op.

    Attributes:
        id: Index of the node in the graph.
        label: What the op is, such as ``sep_conv 3×3``.
        group: Outermost part of its weights' name, such as ``cell2``; inherited from its first
            input where it has no weights.
        shape: (C, H, W) or (F,) of its output.
    """

    id: int
    label: str
    group: str
    shape: tuple[int, ...]


def outline(graph: Graph) -> tuple[list[Box], list[tuple[int, int]]]:
    """Return the boxes of a graph and its arrows as (from, to)."""
    boxes: list[Box] = []
    arrows: list[tuple[int, int]] = []
    for index, node in enumerate(graph.nodes):
        if node.weights:
            group = node.weights.split("/")[0]
        else:
            group = boxes[node.inputs[0]].group if node.inputs else ""
        boxes.append(Box(index, _label(node.op), group, node.shape))
        arrows += [(source, index) for source in node.inputs]
    return boxes, arrows


def _label(op: Op) -> str:
    attributes = {field.name: getattr(op, field.name) for field in fields(op)}
    if "branches" in attributes:
        branches = attributes["branches"]
        return " + ".join("identity" if b.op is None else _label(b.op) for b in branches)
    label = op.kind
    if "kernel" in attributes:
        label += f" {attributes['kernel']}×{attributes['kernel']}"
    if attributes.get("stride", 1) != 1:
        label += f" /{attributes['stride']}"
    return label
