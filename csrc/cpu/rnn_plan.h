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
    bool carry_last;
    const std::int32_t* source;      // [N][M] node that is read; -1 at level 0: the state
    const std::int32_t* activation;  // [N][M] 0 tanh, 1 ReLU, 2 identity, 3 sigmoid
    const std::int32_t* last;        // [N][M] whether no later node reads the same source
    const std::int32_t* leaf;        // [N][M] whether nobody reads the node
    const std::int32_t* leaves;      // [M] number of leaves
    const RnnGroup* groups;          // by level
    const std::int32_t* level;       // [N + 1] first group of each level
    const std::int32_t* members;     // cells of the groups

    std::int64_t rows() const { return cells * batch; }
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

}  // namespace hwnas
