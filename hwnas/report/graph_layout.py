"""Places the boxes and arrows of a drawing, top to bottom, in layers.

The usual steps (Sugiyama, Tagawa and Toda, 1981): each node is put one layer below its lowest
source; an arrow that spans several layers gets a waypoint in each; every layer is ordered by the
mean place of its neighbours, a few times down and up; then columns are given. An arrow that closes
a circle is drawn upwards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from hwnas.report.results import Drawing, DrawnNode

_CHARACTER, _PADDING, _GAP = 7.4, 22.0, 18.0
_HEIGHT, _DETAIL_HEIGHT, _LAYER_GAP = 30.0, 14.0, 34.0
_WAYPOINT_WIDTH = 10.0
_SWEEPS = 6
_LONGEST = 30


@dataclass(frozen=True)
class PlacedNode:
    """A box: centre, size and texts; units are pixels at scale 1."""

    node: DrawnNode
    label: str
    detail: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class PlacedEdge:
    """An arrow as an SVG path, and where its label goes."""

    path: str
    label: str
    label_x: float
    label_y: float


@dataclass(frozen=True)
class Placed:
    """A drawing with its places."""

    title: str
    width: float
    height: float
    nodes: tuple[PlacedNode, ...]
    edges: tuple[PlacedEdge, ...]

    @property
    def description(self) -> str:
        """What the drawing shows, in words."""
        boxes = ", ".join(f"{each.label} {each.detail}".strip() for each in self.nodes[:40])
        more = f" and {len(self.nodes) - 40} more" if len(self.nodes) > 40 else ""
        return f"{len(self.nodes)} boxes and {len(self.edges)} arrows: {boxes}{more}."


def place(drawing: Drawing) -> Placed:
    """Place a drawing; edges from or to unknown nodes are left out."""
    nodes = {node.id: node for node in drawing.nodes}
    edges = [e for e in drawing.edges if e.source in nodes and e.target in nodes]
    chains, layers = _layers(list(nodes), [(edge.source, edge.target) for edge in edges])
    widths = {name: _width(node) for name, node in nodes.items()}
    neighbours = [pair for chain in chains for pair in pairwise(chain)]
    _order(layers, neighbours)
    x = _columns(layers, neighbours, widths)
    height = _HEIGHT + (_DETAIL_HEIGHT if any(node.detail for node in drawing.nodes) else 0)
    y = {name: _row(depth, height) for depth, layer in enumerate(layers) for name in layer}
    boxes = tuple(
        PlacedNode(
            node=node,
            label=_cut(node.label),
            detail=_cut(node.detail),
            x=x[name],
            y=y[name],
            width=widths[name],
            height=height if node.detail else _HEIGHT,
        )
        for name, node in nodes.items()
    )
    tops = {box.node.id: box.height / 2 for box in boxes}
    arrows = []
    for edge, chain in zip(edges, chains, strict=True):
        points = [(x[name], y[name]) for name in chain]
        points[0] = (points[0][0], points[0][1] + tops[edge.source])
        points[-1] = (points[-1][0], points[-1][1] - tops[edge.target] - 5)
        middle = points[len(points) // 2] if len(points) > 2 else _middle(points[0], points[-1])
        arrows.append(PlacedEdge(_curve(points), edge.label, middle[0] + 5, middle[1]))
    right = max((x[name] + widths.get(name, _WAYPOINT_WIDTH) / 2 for name in x), default=0.0)
    bottom = _row(max(0, len(layers) - 1), height) + height / 2
    return Placed(drawing.title, right + 12, bottom + 12, boxes, tuple(arrows))


def _row(depth: int, height: float) -> float:
    return 12 + height / 2 + depth * (height + _LAYER_GAP)


def _middle(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _width(node: DrawnNode) -> float:
    longest = max(len(_cut(node.label)), 0.9 * len(_cut(node.detail)))
    return max(56.0, _PADDING + _CHARACTER * longest)


def _layers(
    names: Sequence[str], edges: Sequence[tuple[str, str]]
) -> tuple[list[list[str]], list[list[str]]]:
    """Return each edge as a chain of names with waypoints, and the names of each layer."""
    depth = _depths(names, edges)
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for name in names:
        layers[depth[name]].append(name)
    chains = []
    for number, (source, target) in enumerate(edges):
        step = 1 if depth[target] >= depth[source] else -1
        between = range(depth[source] + step, depth[target], step)
        # A NUL cannot start the id of a node that came through an HTML page or a file name.
        waypoints = [f"\0{number}:{level}" for level in between]
        for level, waypoint in zip(between, waypoints, strict=True):
            layers[level].append(waypoint)
        chains.append([source, *waypoints, target])
    return chains, layers


def _depths(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return the layer of each name: one below its lowest source."""
    sources: dict[str, list[str]] = {name: [] for name in names}
    for source, target in dict.fromkeys(edges):
        sources[target].append(source)
    while True:
        try:
            order = list(TopologicalSorter(sources).static_order())
            break
        except CycleError as error:
            circle = error.args[1]
            sources[circle[1]].remove(circle[0])
    depth: dict[str, int] = {}
    for name in order:
        depth[name] = max((depth[source] + 1 for source in sources[name]), default=0)
    return depth


def _order(layers: list[list[str]], pairs: Sequence[tuple[str, str]]) -> None:
    """Sort each layer in place by the mean place of its neighbours above, then below."""
    above: Mapping[str, list[str]] = defaultdict(list)
    below: Mapping[str, list[str]] = defaultdict(list)
    for upper, lower in pairs:
        above[lower].append(upper)
        below[upper].append(lower)
    for sweep in range(_SWEEPS):
        is_down = sweep % 2 == 0
        neighbours = above if is_down else below
        order = range(len(layers)) if is_down else range(len(layers) - 1, -1, -1)
        place = {name: float(i) for layer in layers for i, name in enumerate(layer)}
        for depth in order:
            layers[depth].sort(
                key=lambda name: _mean([place[each] for each in neighbours[name]], place[name])
            )
            place.update((name, float(i)) for i, name in enumerate(layers[depth]))


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _columns(
    layers: Sequence[Sequence[str]], pairs: Sequence[tuple[str, str]], widths: Mapping[str, float]
) -> dict[str, float]:
    """Return a column for each name: near its neighbours, without overlap in its layer."""
    neighbours: Mapping[str, list[str]] = defaultdict(list)
    for upper, lower in pairs:
        neighbours[lower].append(upper)
        neighbours[upper].append(lower)
    x: dict[str, float] = {}
    for layer in layers:
        total = sum(widths.get(name, _WAYPOINT_WIDTH) + _GAP for name in layer)
        right = -total / 2
        for name in layer:
            width = widths.get(name, _WAYPOINT_WIDTH) + _GAP
            x[name] = right + width / 2
            right += width
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = [_mean([x[each] for each in neighbours[name]], x[name]) for name in layer]
            x.update(zip(layer, _apart(layer, wanted, widths), strict=True))
    left = min((x[name] - widths.get(name, _WAYPOINT_WIDTH) / 2 for name in x), default=0.0)
    return {name: value - left + 12 for name, value in x.items()}


def _apart(
    layer: Sequence[str], wanted: Sequence[float], widths: Mapping[str, float]
) -> list[float]:
    """Move the wanted places apart until nothing overlaps: the mean of two greedy passes."""
    halves = [(widths.get(name, _WAYPOINT_WIDTH) + _GAP) / 2 for name in layer]
    rightwards = list(wanted)
    for i in range(1, len(layer)):
        rightwards[i] = max(wanted[i], rightwards[i - 1] + halves[i - 1] + halves[i])
    leftwards = list(wanted)
    for i in range(len(layer) - 2, -1, -1):
        leftwards[i] = min(wanted[i], leftwards[i + 1] - halves[i + 1] - halves[i])
    return [(a + b) / 2 for a, b in zip(rightwards, leftwards, strict=True)]


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Return a smooth SVG path through the points, vertical at each of them."""
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        bend = (y1 - y0) / 2
        path += f"C{x0:.1f},{y0 + bend:.1f} {x1:.1f},{y1 - bend:.1f} {x1:.1f},{y1:.1f}"
    return path
