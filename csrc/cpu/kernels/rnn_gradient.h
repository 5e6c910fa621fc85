// The memory of a backward pass, and the gradients of the weights: one GEMM an edge over all steps.
#pragma once

#include "cpu/kernels/rnn_cell.h"
#include "cpu/kernels/rnn_gemm.h"

namespace hwnas {
namespace HWNAS_ISA {
namespace {

// Rows of the inner dimension whose operands fit in L1 for a tile and in L2 for a block; panels of
// the gradient's rows and of its columns that make a block.
constexpr Index kDepth = 128;
constexpr Index kBlockPanels = 256 / kLanes;
constexpr Index kBlockColumns = 240 / kLanes;

// Where things lie in the scratch memory and in `saved`.
struct Backward {
    const RnnBackwardArgs& args;
    const RnnPlan& plan;
    Index rows;         // M * B
    Index panels;       // of H
    Index x_panels;     // of E
    Index plane;        // floats of a plane [R, H]
    Index x_plane;
    Index chunk;        // steps whose gradients of pre-activations are kept
    float* x;           // [T] planes
    float* d_pres;      // [chunk][N] pairs of planes: gradients of pre-activations
    float* d_nodes;     // [N] planes: gradients of the nodes' states
    float* d_state;     // plane
    float* gathered;    // [2] pairs of planes
    float* w_input;     // packed
    float* weights;     // packed: the state's, then each edge's
    RowSegment* segments;  // of all threads

    explicit Backward(const RnnBackwardArgs& a)
        : args(a),
          plan(a.plan),
          rows(a.plan.rows),
          panels(panels_of(a.plan.hidden)),
          x_panels(panels_of(a.plan.input)),
          plane(rnn_plane(rows, a.plan.hidden)),
          x_plane(rnn_plane(rows, a.plan.input)),
          chunk(rnn_chunk(a.plan)),
          x(a.scratch),
          d_pres(x + plan.steps * x_plane),
          d_nodes(d_pres + chunk * plan.nodes * 2 * plane),
          d_state(d_nodes + plan.nodes * plane),
          gathered(d_state + plane),
          w_input(gathered + 4 * plane),
          weights(w_input + (x_panels + 1) / 2 * panel_size()),
          segments(reinterpret_cast<RowSegment*>(weights +
                                              (plan.edges + 1) * pairs() * panel_size())) {}

    Index pairs() const { return (panels + 1) / 2; }
    Index panel_size() const { return 2 * panels * kLanes * kPair; }
    const float* packed(int edge, Index q) const {
        return weights + ((edge + 1) * pairs() + q) * panel_size();
    }
    const float* state(Index t) const { return args.saved + t * (3 * plan.nodes + 1) * plane; }
    const float* node(Index t, Index level, int what) const {
        return state(t) + (1 + 3 * level + what) * plane;
    }
    const float* source(Index t, Index level, Index cell) const {
        const int from = plan.source[level * plan.cells + cell];
        return from < 0 ? state(t) : node(t, from, 2);
    }
    float* d_node(Index level) const { return d_nodes + level * plane; }
    // [gate panels, node panels][row][lane]
    float* d_pre(Index t, Index level) const {
        return d_pres + (t % chunk * plan.nodes + level) * 2 * plane;
    }
};

// One matrix's gradient [2 H, width] as C = A^T B.
struct WeightGradient {
    float* out;
    Index width;
    const RowSegment* segments;
    Index count;
    bool add;
};

template <int PANELS>
void gradient_columns(const Backward& b, const WeightGradient& w, Range block, Index column) {
    const Index stride = b.rows * kLanes;
    const int lanes = lanes_of(w.width, column + PANELS - 1);
    for (Index p = block.begin; p < block.end; ++p) {
        const Index half = p / b.panels;
        const Index panel = p % b.panels;
        const int valid = lanes_of(b.plan.hidden, panel);
        for (int r = 0; r < valid; r += kGradRows) {
            float* const out = w.out +
                               (half * b.plan.hidden + panel * kLanes + r) * w.width +
                               column * kLanes;
            accumulate_tile<kGradRows, PANELS>(w.segments, w.count, p * stride + r,
                                               column * stride, stride, w.add, out, w.width,
                                               valid - r, lanes);
        }
    }
}

// Columns [from, to) of the gradient's rows that belong to the panels `block`.
void gradient_block(const Backward& b, const WeightGradient& w, Range block, Index from, Index to) {
    while (from < to) {
        const Index left = to - from;
        // Four columns are better as two and two than as three and one.
        if (kGradPanels == 3 && left >= 3 && left != 4) {
            gradient_columns<kGradPanels>(b, w, block, from);
            from += kGradPanels;
        } else if (left >= 2) {
            gradient_columns<2>(b, w, block, from);
            from += 2;
        } else {
            gradient_columns<1>(b, w, block, from);
            from += 1;
        }
    }
}

// Rows of the gradient that belong to the panels `own` of the 2 * panels. A block of it stays in L2
// over all steps, and kDepth rows of a tile's operands in L1.
void weight_gradient(const Backward& b, const WeightGradient& all, Range own) {
    const RowSegment* const end = all.segments + all.count;
    const Index columns = panels_of(all.width);
    for (Index from = own.begin; from < own.end; from += kBlockPanels) {
        const Range block = {from,
                             from + kBlockPanels < own.end ? from + kBlockPanels : own.end};
        for (Index column = 0; column < columns;) {
            const Index left = columns - column;
            const Index to =
                column + (left < kBlockColumns + kBlockColumns / 4 ? left : kBlockColumns);
            WeightGradient w = all;
            do {
                Index depth = 0;
                for (w.count = 0; w.segments + w.count < end; ++w.count) {
                    depth += w.segments[w.count].rows;
                    if (w.count > 0 && depth > kDepth) {
                        break;
                    }
                }
                gradient_block(b, w, block, column, to);
                w.segments += w.count;
                w.add = true;
            } while (w.segments < end);
            column = to;
        }
    }
}

// Appends rows [first, first + rows) of a step, in pieces.
Index add_segments(const float* a, const float* b, Index first, Index rows, RowSegment* segments,
                   Index count) {
    for (; rows > 0; first += kRnnSegmentRows, rows -= kRnnSegmentRows) {
        segments[count++] = {a + first * kLanes, b + first * kLanes,
                             rows < kRnnSegmentRows ? rows : kRnnSegmentRows};
    }
    return count;
}

Index edge_segments(const Backward& b, Index begin, Index end, int edge, RowSegment* segments) {
    const RnnPlan& plan = b.plan;
    Index count = 0;
    for (Index level = 0; level < plan.nodes; ++level) {
        for (int g = plan.level[level]; g < plan.level[level + 1]; ++g) {
            const RnnGroup& group = plan.groups[g];
            if (group.edge != edge) {
                continue;
            }
            const Index pieces = group.contiguous != 0 ? 1 : group.count;
            const Index rows = plan.batch * group.count / pieces;
            for (Index t = begin; t < end; ++t) {
                for (Index i = 0; i < pieces; ++i) {
                    const Index cell = plan.members[group.first + i];
                    count = add_segments(b.d_pre(t, level), b.source(t, level, cell),
                                         cell * plan.batch, rows, segments, count);
                }
            }
        }
    }
    return count;
}

// Gradients of all weights for steps [begin, end); added where `add` is set.
void weight_gradients(const Backward& b, Index begin, Index end, bool add, int part, int parts) {
    const RnnPlan& plan = b.plan;
    const Range own = share(2 * b.panels, part, parts);
    RowSegment* const segments = b.segments + part * rnn_segments(plan);
    Index count = 0;
    for (Index t = begin; t < end; ++t) {
        count = add_segments(b.d_pre(t, 0), b.x + t * b.x_plane, 0, b.rows, segments, count);
    }
    weight_gradient(b, {b.args.dw_input, plan.input, segments, count, add}, own);
    for (int edge = -1; edge < plan.edges; ++edge) {
        count = edge_segments(b, begin, end, edge, segments);
        weight_gradient(b,
                        {edge < 0 ? b.args.dw_hidden : b.args.d_edges[edge], plan.hidden,
                         segments, count, add},
                        own);
    }
}

}  // namespace
}  // namespace HWNAS_ISA
}  // namespace hwnas
