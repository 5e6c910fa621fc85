"""Drawings: nothing overlaps, arrows go down, and strange graphs are drawn too."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.report.graph_layout import Placed, PlacedNode, place
from hwnas.report.results import Drawing, DrawnEdge, DrawnNode


def drawing(nodes: int, edges: list[tuple[int, int]]) -> Drawing:
    return Drawing(
        title="graph",
        nodes=[DrawnNode(id=str(i), label="op" * (1 + i % 7)) for i in range(nodes)],
        edges=[DrawnEdge(source=str(a), target=str(b)) for a, b in edges],
    )


def overlap(a: PlacedNode, b: PlacedNode) -> bool:
    return (
        abs(a.x - b.x) < (a.width + b.width) / 2 - 1e-6
        and abs(a.y - b.y) < (a.height + b.height) / 2 - 1e-6
    )


def check(placed: Placed) -> None:
    boxes = placed.nodes
    for i, box in enumerate(boxes):
        assert box.width / 2 <= box.x <= placed.width - box.width / 2
        assert box.height / 2 <= box.y <= placed.height - box.height / 2
        assert not any(overlap(box, other) for other in boxes[i + 1 :])


@given(st.data())
def test_boxes_never_overlap_and_arrows_of_a_graph_without_circles_go_down(
    data: st.DataObject,
) -> None:
    nodes = data.draw(st.integers(1, 14))
    pairs = [(a, b) for b in range(nodes) for a in range(b)]
    edges = data.draw(st.lists(st.sampled_from(pairs), max_size=30)) if pairs else []
    placed = place(drawing(nodes, edges))
    check(placed)
    y = {box.node.id: box.y for box in placed.nodes}
    assert all(y[str(a)] < y[str(b)] for a, b in edges)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=25))
def test_circles_and_loops_are_drawn_all_the_same(edges: list[tuple[int, int]]) -> None:
    placed = place(drawing(8, edges))
    check(placed)
    assert len(placed.edges) == len(edges)


def test_a_chain_is_drawn_in_one_straight_column() -> None:
    placed = place(drawing(5, list(pairwise(range(5)))))
    assert len({round(box.x, 6) for box in placed.nodes}) == 1


def test_an_edge_to_a_node_that_is_not_there_is_left_out() -> None:
    assert place(drawing(2, [(0, 1), (1, 9)])).edges[0].path.startswith("M")
    assert len(place(drawing(2, [(0, 1), (1, 9)])).edges) == 1


def test_a_drawing_without_nodes_has_a_size() -> None:
    placed = place(drawing(0, []))
    assert placed.width > 0
    assert placed.height > 0


def test_paths_hold_numbers_only() -> None:
    placed = place(drawing(6, [(0, 5), (0, 1), (1, 5), (2, 5)]))
    for edge in placed.edges:
        assert re.fullmatch(r"M[\d.,-]+(C[\d., -]+)+", edge.path)


def test_a_long_label_is_cut_and_the_description_counts_the_rest() -> None:
    nodes = [DrawnNode(id=str(i), label="x" * 99) for i in range(50)]
    placed = place(Drawing(title="long", nodes=nodes, edges=[]))
    assert placed.nodes[0].label.endswith("…")
    assert "and 10 more" in placed.description


@pytest.mark.parametrize("nodes", [600])
def test_a_large_network_is_placed_quickly(nodes: int) -> None:
    rng = random.Random(0)
    edges = [(rng.randrange(max(0, b - 6), b), b) for b in range(1, nodes) for _ in range(2)]
    check(place(drawing(nodes, edges)))
