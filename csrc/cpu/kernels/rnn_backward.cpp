#include <omp.h>

#include "cpu/kernels/rnn_cell.h"
#include "cpu/kernels/rnn_gemm.h"
#include "cpu/kernels/rnn_gradient.h"

namespace hwnas {
namespace HWNAS_ISA {

namespace {

// Depth whose weights stay in L1 for all tiles of a block, and the most tiles of one.
constexpr Index kDepthPanels = 256 / kLanes;
constexpr Index kBlockTiles = 8;

// Pieces of `bytes` each, in that order, that the calls of one block of tiles ask for besides.
constexpr int kMostPieces = 5;
struct Pieces {
    const float* at[kMostPieces];
    int count;
    Index bytes;
};

// The share of call `index` of `calls`, of `steps` steps.
HWNAS_INLINE Prefetch share_of(const Pieces& pieces, Index index, Index calls, Index steps,
                               const float* idle) {
    const Index each = pieces.count > 0 ? calls / pieces.count : 0;
    if (each == 0 || index >= each * pieces.count) {
        return {reinterpret_cast<const char*>(idle), 0};
    }
    const Index bytes = pieces.bytes / each;
    return {reinterpret_cast<const char*>(pieces.at[index / each]) + index % each * bytes,
            (bytes + steps - 1) / steps};
}

// out[row][kPair] = a b for the tiles [first, last), whose first row is row 0 of `out`.
static void multiply_tiles(const Tiles& tiles, Range some, Panels a, const float* b, Index panels,
                           const float* next, const Pieces& pieces, float* out) {
    const Index start = tile(tiles, some.begin).begin;
    const Index blocks = (panels + kDepthPanels - 1) / kDepthPanels;
    const Index count = some.end - some.begin;
    for (Index block = 0; block < blocks; ++block) {
        const Index from = panels * block / blocks;
        const Index depth = panels * (block + 1) / blocks - from;
        for (Index i = some.begin; i < some.end; ++i) {
            const Range part = tile(tiles, i);
            Prefetch ahead = prefetch(next, panels, tiles, i);
            ahead.next += from * kLanes * ahead.step;
            const Prefetch also = share_of(pieces, block * count + i - some.begin, blocks * count,
                                           depth * kLanes, b);
            multiply_any<true>((int)(part.end - part.begin),
                               {a.data + from * a.stride + part.begin * kLanes, a.stride},
                               b + from * kLanes * kPair, depth, ahead, also, block > 0,
                               out + (part.begin - start) * kPair);
        }
    }
}

// What the highway's gradient reads and writes: rows of one cell in one panel.
struct HighwayBackward {
    const float* gate;
    const float* value;
    const float* before;
    const float* d_output;  // row-major, or null where the node is no leaf
    const float* d_state;   // or null where the node is not carried on its own
    const float* d_mean;    // gradient of the carried mean, or null
    float scale;            // of d_output and d_mean
    Index width;            // row length of d_output
    int lanes;
    float* after;           // in: gradient of a node that is no leaf; out: what passes by the gate
    float* d_gate;          // of the gate's and the node's pre-activations
    float* d_value;
};

template <int ACTIVATION>
void highway_backward(const HighwayBackward& h, Index rows) {
    for (Index r = 0; r < rows; ++r) {
        const Index at = r * kLanes;
        Vec d;
        if (h.d_output == nullptr) {
            d = load(h.after + at);
        } else {
            d = load_first(h.d_output + r * h.width, h.lanes);
            if (h.d_mean != nullptr) {
                d += load(h.d_mean + at);
            }
            d *= h.scale;
            if (h.d_state != nullptr) {
                d += load(h.d_state + at);
            }
        }
        const Vec gate = load(h.gate + at);
        const Vec value = load(h.value + at);
        const Vec keep = 1.0f - gate;
        store(h.d_gate + at, d * (value - load(h.before + at)) * (gate * keep));
        store(h.d_value + at, activate_backward<ACTIVATION>(value, d * gate));
        store(h.after + at, d * keep);
    }
}

void highway_backward(const HighwayBackward& h, int activation, Index rows) {
    switch (activation) {
        case kTanh:
            return highway_backward<kTanh>(h, rows);
        case kRelu:
            return highway_backward<kRelu>(h, rows);
        case kIdentity:
            return highway_backward<kIdentity>(h, rows);
        default:
            return highway_backward<kSigmoid>(h, rows);
    }
}

void backward_cell(const Backward& b, Index t, Index level, Index cell, Range own) {
    const RnnPlan& plan = b.plan;
    const bool leaf = plan.leaf[level * plan.cells + cell] != 0;
    HighwayBackward h{};
    h.scale = 1.0f / (float)plan.leaves[cell];
    h.width = plan.hidden;
    for (Index p = own.begin; p < own.end; ++p) {
        const Index at = (p * b.rows + cell * plan.batch) * kLanes;
        h.gate = b.node(t, level, 0) + at;
        h.value = b.node(t, level, 1) + at;
        h.before = b.source(t, level, cell) + at;
        h.lanes = lanes_of(plan.hidden, p);
        if (leaf) {
            h.d_output = b.args.d_output + (t * b.rows + cell * plan.batch) * plan.hidden +
                         p * kLanes;
            h.d_mean = plan.carry_last ? nullptr : b.d_state + at;
            h.d_state = plan.carry_last && level + 1 == plan.nodes ? b.d_state + at : nullptr;
        }
        h.after = b.d_node(level) + at;
        h.d_gate = b.d_pre(t, level) + at;
        h.d_value = h.d_gate + b.panels * b.rows * kLanes;
        highway_backward(h, plan.activation[level * plan.cells + cell], plan.batch);
    }
}

// The gradients of a group's pre-activations as one operand: in place, or copied together.
Panels operand(const Backward& b, Index t, Index level, const RnnGroup& group) {
    if (group.contiguous != 0) {
        const Index first = b.plan.members[group.first];
        return {b.d_pre(t, level) + first * b.plan.batch * kLanes, b.rows * kLanes};
    }
    return {b.gathered + (level % 2) * 2 * b.plane + group.row * 2 * b.panels * kLanes,
            group.count * b.plan.batch * kLanes};
}

void gather(const Backward& b, Index t, Index level, Range own) {
    const Index batch = b.plan.batch;
    for (int g = b.plan.level[level]; g < b.plan.level[level + 1]; ++g) {
        const RnnGroup& group = b.plan.groups[g];
        if (group.contiguous != 0) {
            continue;
        }
        const Panels to = operand(b, t, level, group);
        for (Index half = 0; half < 2; ++half) {
            for (Index p = half * b.panels + own.begin; p < half * b.panels + own.end; ++p) {
                for (Index i = 0; i < group.count; ++i) {
                    const Index cell = b.plan.members[group.first + i];
                    __builtin_memcpy(
                        const_cast<float*>(to.data) + p * to.stride + i * batch * kLanes,
                        b.d_pre(t, level) + (p * b.rows + cell * batch) * kLanes,
                        (std::size_t)(batch * kLanes) * sizeof(float));
                }
            }
        }
    }
}

// Adds a tile of gradients to those of the nodes that were read, and what went by the gate.
void finish_tile(const Backward& b, Index level, const RnnGroup& group, Index q, Range part,
                 const float* product) {
    const RnnPlan& plan = b.plan;
    const Index batch = plan.batch;
    for (Index row = part.begin; row < part.end;) {
        const Index cell = plan.members[group.first + row / batch];
        const Index inside = row % batch;
        const Index count = batch - inside < part.end - row ? batch - inside : part.end - row;
        const Index place = level * plan.cells + cell;
        float* const target = level == 0 ? b.d_state : b.d_node(plan.source[place]);
        const bool add = plan.last[place] == 0;
        for (Index half = 0; half < 2 && 2 * q + half < b.panels; ++half) {
            const Index at = ((2 * q + half) * b.rows + cell * batch + inside) * kLanes;
            const float* const from = product + (row - part.begin) * kPair + half * kLanes;
            const float* const passed = b.d_node(level) + at;
            for (Index r = 0; r < count; ++r) {
                Vec sum = load(from + r * kPair) + load(passed + r * kLanes);
                if (add) {
                    sum += load(target + at + r * kLanes);
                }
                store(target + at + r * kLanes, sum);
            }
        }
        row += count;
    }
}

// What the highway's gradient of these panels reads and writes next, asked for while the products
// of this level are computed.
Pieces read_next(const Backward& b, Index t, Index level, int g, Index q) {
    Pieces result{};
    if (g == b.plan.level[level] && (level > 0 || t > 0)) {
        const Index to = level > 0 ? t : t - 1;
        const Index then = level > 0 ? level - 1 : b.plan.nodes - 1;
        const Index at = 2 * q * b.rows * kLanes;
        result.at[0] = b.node(to, then, 0) + at;
        result.at[1] = b.node(to, then, 1) + at;
        result.at[2] = b.source(to, then, 0) + at;
        result.at[3] = b.d_pre(to, then) + at;
        result.at[4] = b.d_pre(to, then) + b.panels * b.rows * kLanes + at;
        result.count = kMostPieces;
        result.bytes = 2 * b.rows * kLanes * (Index)sizeof(float);
    }
    return result;
}

void run_level(const Backward& b, Index t, Index level, Range pairs) {
    alignas(64) float product[kBlockTiles * kTileRows * kPair];
    const RnnPlan& plan = b.plan;
    for (int g = plan.level[level]; g < plan.level[level + 1]; ++g) {
        const RnnGroup& group = plan.groups[g];
        // Groups are in order of the levels, and this pass goes through the levels backwards.
        const int after = g + 1 < plan.level[level + 1] ? plan.groups[g + 1].edge
                          : level > 0 ? plan.groups[plan.level[level - 1]].edge
                                      : plan.groups[plan.level[plan.nodes - 1]].edge;
        const Panels a = operand(b, t, level, group);
        const Tiles tiles = tiles_of(group.count * plan.batch);
        for (Index q = pairs.begin; q < pairs.end; ++q) {
            const float* const next =
                q + 1 < pairs.end ? b.packed(group.edge, q + 1) : b.packed(after, pairs.begin);
            Pieces soon = read_next(b, t, level, g, q);
            for (Index i = 0; i < tiles.count; i += kBlockTiles) {
                const Range some = {i, i + kBlockTiles < tiles.count ? i + kBlockTiles
                                                                     : tiles.count};
                multiply_tiles(tiles, some, a, b.packed(group.edge, q), 2 * b.panels, next, soon,
                               product);
                finish_tile(b, level, group, q,
                            {tile(tiles, some.begin).begin, tile(tiles, some.end - 1).end},
                            product);
                soon.count = 0;
            }
        }
    }
}

// Gradient of x for steps [begin, end), from node 0's pre-activations.
void backward_input(const Backward& b, Index begin, Index end, Range pairs) {
    alignas(64) float product[kBlockTiles * kTileRows * kPair];
    const RnnPlan& plan = b.plan;
    const Tiles tiles = tiles_of(b.rows);
    const Index block = rnn_block(plan);
    for (Index from = begin; from < end; from += block) {
        const Index to = from + block < end ? from + block : end;
        for (Index q = pairs.begin; q < pairs.end; ++q) {
            const float* const weights = b.w_input + q * b.panel_size();
            for (Index t = from; t < to; ++t) {
                for (Index i = 0; i < tiles.count; i += kBlockTiles) {
                    const Range some = {i, i + kBlockTiles < tiles.count ? i + kBlockTiles
                                                                         : tiles.count};
                    multiply_tiles(tiles, some, {b.d_pre(t, 0), b.rows * kLanes}, weights,
                                   2 * b.panels, weights + b.panel_size(), {}, product);
                    const Index first = tile(tiles, some.begin).begin;
                    const Index last = tile(tiles, some.end - 1).end;
                    for (Index row = first; row < last; ++row) {
                        float* const out =
                            b.args.dx + (t * b.rows + row) * plan.input + q * kPair;
                        const float* const got = product + (row - first) * kPair;
                        store_first(out, load(got), lanes_of(plan.input, 2 * q));
                        store_first(out + kLanes, load(got + kLanes),
                                    lanes_of(plan.input, 2 * q + 1));
                    }
                }
            }
        }
    }
}

// Weights [2 H, K]: columns of the panels 2 q and 2 q + 1 of K, for the rows of all gate panels and
// then of all node panels.
void pack_backward(const float* weights, Index hidden, Index width, Index q, float* out) {
    const Index rows = panels_of(hidden) * kLanes;
    const int first = lanes_of(width, 2 * q);
    const int second = lanes_of(width, 2 * q + 1);
    for (Index half = 0; half < 2; ++half) {
        for (Index k = 0; k < rows; ++k, out += kPair) {
            const float* const from = weights + (half * hidden + k) * width + q * kPair;
            store(out, k < hidden ? load_first(from, first) : Vec{});
            store(out + kLanes, k < hidden && second > 0 ? load_first(from + kLanes, second)
                                                         : Vec{});
        }
    }
}

void pack_weights(const Backward& b, Range pairs, Range x_pairs) {
    for (Index q = x_pairs.begin; q < x_pairs.end; ++q) {
        pack_backward(b.args.w_input, b.plan.hidden, b.plan.input, q,
                      b.w_input + q * b.panel_size());
    }
    for (Index q = pairs.begin; q < pairs.end; ++q) {
        for (int edge = -1; edge < b.plan.edges; ++edge) {
            pack_backward(edge < 0 ? b.args.w_hidden : b.args.edges[edge], b.plan.hidden,
                          b.plan.hidden, q, const_cast<float*>(b.packed(edge, q)));
        }
    }
}

// The gradient of the initial state, from panels to rows.
void unpack_state(const Backward& b, Range own) {
    for (Index p = own.begin; p < own.end; ++p) {
        const float* from = b.d_state + p * b.rows * kLanes;
        for (Index r = 0; r < b.rows; ++r, from += kLanes) {
            store_first(b.args.dh0 + r * b.plan.hidden + p * kLanes, load(from),
                        lanes_of(b.plan.hidden, p));
        }
    }
}

void run_steps(const Backward& b, Index begin, Index end, Range own, Range pairs) {
    for (Index t = end - 1; t >= begin; --t) {
        for (Index level = b.plan.nodes - 1; level >= 0; --level) {
            for (Index cell = 0; cell < b.plan.cells; ++cell) {
                backward_cell(b, t, level, cell, own);
            }
            gather(b, t, level, own);
#pragma omp barrier
            run_level(b, t, level, pairs);
        }
    }
}

}  // namespace

void rnn_backward(const RnnBackwardArgs& args) {
    const Backward b(args);
    const RnnPlan& plan = b.plan;
#pragma omp parallel num_threads(args.threads)
    {
        const int part = omp_get_thread_num();
        const int parts = omp_get_num_threads();
        const Range pairs = share((b.panels + 1) / 2, part, parts);
        const Range own = {2 * pairs.begin,
                           2 * pairs.end < b.panels ? 2 * pairs.end : b.panels};
        const Range x_pairs = share((b.x_panels + 1) / 2, part, parts);
        const Range steps = share(plan.steps, part, parts);
        pack_weights(b, pairs, x_pairs);
        for (Index t = steps.begin; t < steps.end; ++t) {
            for (Index p = 0; p < b.x_panels; ++p) {
                pack_panel(args.x + t * b.rows * plan.input, b.rows, plan.input, p,
                           b.x + t * b.x_plane);
            }
        }
        for (Index p = own.begin; p < own.end; ++p) {
            pack_panel(args.d_state, b.rows, plan.hidden, p, b.d_state);
        }
        Index end = plan.steps;
        do {
            const Index begin = end > b.chunk ? end - b.chunk : 0;
            if (b.rows > 0) {
                run_steps(b, begin, end, own, pairs);
            }
#pragma omp barrier
            if (b.rows > 0) {
                backward_input(b, begin, end, x_pairs);
            }
            weight_gradients(b, begin, end, end < plan.steps, part, parts);
#pragma omp barrier
            end = begin;
        } while (end > 0);
        unpack_state(b, own);
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
