#include "cells.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

namespace hwnas {

namespace {

using Order = std::array<std::int8_t, kCellVertices>;  // where each vertex goes

// All ways to rename the vertices between the first and the last.
std::vector<Order> interior_orders(int vertices) {
    std::vector<Order> found;
    Order order{};
    std::iota(order.begin(), order.end(), static_cast<std::int8_t>(0));
    do {
        found.push_back(order);
    } while (vertices > 2 &&
             std::next_permutation(order.begin() + 1, order.begin() + vertices - 1));
    return found;
}

bool has_edge(std::uint32_t edges, int x, int y) {
    return (edges >> edge_bit(x, y) & 1) != 0;
}

// Whether every vertex but the first has a predecessor, and every one but the last a successor.
bool is_full(std::uint32_t edges, int vertices) {
    unsigned sources = 0;
    unsigned targets = 0;
    for (int y = 1; y < vertices; ++y) {
        const unsigned in = edges >> edge_bit(0, y) & ((1u << y) - 1);
        sources |= in;
        targets |= static_cast<unsigned>(in != 0) << y;
    }
    const unsigned all = (1u << vertices) - 1;
    return sources == (all >> 1) && targets == (all & ~1u);
}

// The renamed edges, or false if one of them would point backwards.
bool rename_edges(std::uint32_t edges, int vertices, const Order& order, std::uint32_t& renamed) {
    renamed = 0;
    for (int y = 1; y < vertices; ++y) {
        for (int x = 0; x < y; ++x) {
            if (!has_edge(edges, x, y)) {
                continue;
            }
            const int from = order[static_cast<std::size_t>(x)];
            const int to = order[static_cast<std::size_t>(y)];
            if (from > to) {
                return false;
            }
            renamed |= 1u << edge_bit(from, to);
        }
    }
    return true;
}

// Fills the renamings that leave `edges` as they are; false if one gives a smaller number.
bool automorphisms_of(std::uint32_t edges, int vertices, const std::vector<Order>& orders,
                      std::vector<Order>& found) {
    found.clear();
    for (const Order& order : orders) {
        std::uint32_t renamed = 0;
        if (!rename_edges(edges, vertices, order, renamed)) {
            continue;
        }
        if (renamed < edges) {
            return false;
        }
        if (renamed == edges) {
            found.push_back(order);
        }
    }
    return true;
}

bool is_first(const Cell& cell, const std::vector<Order>& automorphisms) {
    const auto count = static_cast<std::size_t>(cell.vertices);
    return std::all_of(automorphisms.begin(), automorphisms.end(), [&](const Order& order) {
        std::int8_t renamed[kCellVertices];
        for (std::size_t v = 0; v < count; ++v) {
            renamed[order[v]] = cell.labels[v];
        }
        return !std::lexicographical_compare(renamed, renamed + count, cell.labels,
                                             cell.labels + count);
    });
}

// Moves on to the next labels of the vertices between; false after the last.
bool next_labels(Cell& cell, int ops) {
    for (int v = cell.vertices - 2; v > 0; --v) {
        if (cell.labels[v] + 1 < ops) {
            ++cell.labels[v];
            return true;
        }
        cell.labels[v] = 0;
    }
    return false;
}

void check_range(const char* name, int value, int low, int high) {
    if (value < low || value > high) {
        throw std::invalid_argument(std::string(name) + " = " + std::to_string(value) +
                                    " is not from " + std::to_string(low) + " to " +
                                    std::to_string(high));
    }
}

constexpr int kNone = -3;  // the label of a vertex that the smaller cell lacks

int label_at(const Cell& cell, int vertex, int vertices) {
    if (vertex == vertices - 1) {
        return cell.labels[cell.vertices - 1];
    }
    return vertex < cell.vertices - 1 ? cell.labels[vertex] : kNone;
}

bool labels_differ(int a, int b) {
    return a != b && a != kNone && b != kNone;
}

// bit y of the x-th: an edge; the output is moved to the last of `vertices`.
std::array<unsigned, kCellVertices> successors(const Cell& cell, int vertices) {
    std::array<unsigned, kCellVertices> found{};
    for (int y = 1; y < cell.vertices; ++y) {
        const int to = y == cell.vertices - 1 ? vertices - 1 : y;
        for (int x = 0; x < y; ++x) {
            if (has_edge(cell.edges, x, y)) {
                found[static_cast<std::size_t>(x)] |= 1u << to;
            }
        }
    }
    return found;
}

}  // namespace

std::vector<Cell> enumerate_cells(int max_vertices, int max_edges, int ops) {
    check_range("max_vertices", max_vertices, 2, 7);
    check_range("ops", ops, 1, 16);
    std::vector<Cell> cells;
    std::vector<Order> automorphisms;
    for (int vertices = 2; vertices <= max_vertices; ++vertices) {
        const std::vector<Order> orders = interior_orders(vertices);
        const std::uint32_t graphs = 1u << (vertices * (vertices - 1) / 2);
        for (std::uint32_t edges = 1; edges < graphs; ++edges) {
            if (__builtin_popcount(edges) > max_edges || !is_full(edges, vertices) ||
                !automorphisms_of(edges, vertices, orders, automorphisms)) {
                continue;
            }
            Cell cell{edges, static_cast<std::int8_t>(vertices), {}};
            cell.labels[0] = -1;
            cell.labels[vertices - 1] = -2;
            do {
                if (is_first(cell, automorphisms)) {
                    cells.push_back(cell);
                }
            } while (next_labels(cell, ops));
        }
    }
    return cells;
}

int cell_distance(const Cell& a, const Cell& b) {
    const int vertices = std::max(a.vertices, b.vertices);
    const auto of_a = successors(a, vertices);
    const auto of_b = successors(b, vertices);
    Order order{};
    std::iota(order.begin(), order.end(), static_cast<std::int8_t>(0));
    int fewest = vertices * vertices;
    do {
        int edits = 0;
        for (int x = 0; x < vertices && edits < fewest; ++x) {
            const int to = order[static_cast<std::size_t>(x)];
            edits += labels_differ(label_at(a, x, vertices), label_at(b, to, vertices));
            unsigned renamed = 0;
            for (int y = 0; y < vertices; ++y) {
                renamed |= (of_a[static_cast<std::size_t>(x)] >> y & 1u)
                           << order[static_cast<std::size_t>(y)];
            }
            edits += __builtin_popcount(renamed ^ of_b[static_cast<std::size_t>(to)]);
        }
        fewest = std::min(fewest, edits);
    } while (vertices > 2 &&
             std::next_permutation(order.begin() + 1, order.begin() + vertices - 1));
    return fewest;
}

}  // namespace hwnas
