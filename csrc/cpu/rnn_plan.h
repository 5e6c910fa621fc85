// Which rows of which sampled recurrent cells meet which matrix, worked out before a kernel runs.
#pragma once

#include <cstdint>
#include <vector>

namespace hwnas {

// Rows that one GEMM multiplies: those of the cells whose node at this level reads the same edge.
struct RnnGroup {
    std::int32_t edge;        // index of the matrix; -1 at level 0 (the matrix of the state)
    std::int32_t first;       // first of its cells in RnnPlan::members
    std::int32_t count;       // number of its cells
    std::int32_t row;         // rows of the level's groups before this one
    std::int32_t contiguous;  // whether its cells follow one another and read the same node
};

// M cells of N nodes, B rows each. Level j holds node j of every cell; [N][M] arrays are indexed
// by `level * cells + cell`.
struct RnnPlan {
    std::int64_t steps;
    std::int64_t cells;
    std::int64_t batch;
    std::int64_t input;
    std::int64_t hidden;
    std::int64_t nodes;
    std::int64_t edges;
    std::int64_t rows;  // M * B
    bool carry_last;
    const std::int32_t* source;      // [N][M] node that is read; -1 at level 0: the state
    const std::int32_t* activation;  // [N][M] 0 tanh, 1 ReLU, 2 identity, 3 sigmoid
    const std::int32_t* last;        // [N][M] whether no later node reads the same source
    const std::int32_t* leaf;        // [N][M] whether nobody reads the node
    const std::int32_t* leaves;      // [M] number of leaves
    const RnnGroup* groups;          // by level
    const std::int32_t* level;       // [N + 1] first group of each level
    const std::int32_t* members;     // cells of the groups
};

// Sizes of one call.
struct RnnSizes {
    std::int64_t steps;
    std::int64_t batch;
    std::int64_t input;
    std::int64_t hidden;
    std::int64_t edges;
};

// Owns what an RnnPlan points to.
class RnnSchedule {
  public:
    // `previous` and `edge_index` hold one list of N - 1 for each cell, `activations` one of N.
    //
    // Throws std::invalid_argument naming the cell and the node: the lists differ in length, a node
    // reads itself or a later one, an activation is not 0 to 3, or an edge is not there.
    RnnSchedule(const RnnSizes& sizes, const std::vector<std::vector<std::int32_t>>& previous,
                const std::vector<std::vector<std::int32_t>>& activations,
                const std::vector<std::vector<std::int32_t>>& edge_index, bool carry_last);

    RnnPlan plan() const;

  private:
    void take_cell(std::int64_t cell, const std::vector<std::int32_t>& previous,
                   const std::vector<std::int32_t>& activations,
                   const std::vector<std::int32_t>& edge_index);
    void group_level(std::int64_t level);

    RnnPlan sizes_{};
    std::vector<std::int32_t> source_, activation_, edge_, last_, leaf_, leaves_;
    std::vector<RnnGroup> groups_;
    std::vector<std::int32_t> level_, members_;
};

// Floats of memory, for the widest vectors (a narrower instruction set needs at most as much).

// One matrix [rows, features] in panels (see kernels/rnn_cell.h).
std::int64_t rnn_plane(std::int64_t rows, std::int64_t features);

// What the backward pass needs: the carried state, then c, n and h of each node, for each step.
std::int64_t rnn_saved(const RnnPlan& plan);

// Scratch of a forward pass, and of a backward pass.
std::int64_t rnn_forward_scratch(const RnnPlan& plan);
std::int64_t rnn_backward_scratch(const RnnPlan& plan, int threads);

// Steps whose input projections are computed at once: enough rows to use the weights often.
std::int64_t rnn_block(const RnnPlan& plan);

// Steps after which the weights' gradients are summed: all of them, if memory allows.
std::int64_t rnn_chunk(const RnnPlan& plan);

// Most entries of the list of segments of rows that belong to one edge in one chunk, each of at
// most kRnnSegmentRows.
constexpr std::int64_t kRnnSegmentRows = 128;
std::int64_t rnn_segments(const RnnPlan& plan);

}  // namespace hwnas
