// A cell of NAS-Bench-101: a directed acyclic graph with labelled vertices.
#pragma once

#include <cstdint>

namespace hwnas {

constexpr int kCellVertices = 8;
constexpr int kCellEdges = kCellVertices * (kCellVertices - 1) / 2;

// The bit of the edge from x to y > x, as the published enumeration numbers them.
constexpr int edge_bit(int x, int y) {
    return x + y * (y - 1) / 2;
}

struct Cell {
    std::uint32_t edges;                 // bit edge_bit(x, y) for each edge
    std::int8_t vertices;                // input and output included
    std::int8_t labels[kCellVertices];  // of all vertices in order; -1 input, -2 output
};

}  // namespace hwnas
