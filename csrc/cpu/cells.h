// The cells of NAS-Bench-101: all of them once, and how far one is from another.
#pragma once

#include <vector>

#include "cpu/cell.h"

namespace hwnas {

// Returns one cell of each class of isomorphic ones: at most `max_vertices` vertices and
// `max_edges` edges, every vertex on a path from the input to the output, `ops` labels for the
// vertices between. Isomorphisms map input to input and output to output.
//
// The order is that of the published enumeration (nasbench/scripts/generate_graphs.py): by number
// of vertices, by `edges`, by labels; each class is represented by its first member. Throws
// std::invalid_argument if max_vertices is not in [2, 7] or ops is not in [1, 16].
std::vector<Cell> enumerate_cells(int max_vertices, int max_edges, int ops);

// The fewest edits that turn one cell into the other: an edge added or removed, a vertex's label
// changed. A vertex that one cell lacks is there without edges, with the label that the other cell
// gives it. Input and output stay what they are.
int cell_distance(const Cell& a, const Cell& b);

}  // namespace hwnas
