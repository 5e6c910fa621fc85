#include <omp.h>

#include "cpu/kernels/rnn_cell.h"
#include "cpu/kernels/rnn_gemm.h"

namespace hwnas {
namespace HWNAS_ISA {

namespace {

// Where things lie in the scratch memory and in `saved`.
struct Forward {
    const RnnForwardArgs& args;
    const RnnPlan& plan;
    Index rows;          // M * B
    Index panels;        // of H
    Index x_panels;      // of E
    Index plane;         // floats of a plane [R, H]
    Index x_plane;
    Index block;         // steps whose projections are computed at once
    float* x;            // [T] planes
    float* projected;    // [block][panel][row][gate, node]
    float* gathered;     // [2] planes
    float* w_input;      // packed
    float* weights;      // packed: the state's, then each edge's

    explicit Forward(const RnnForwardArgs& a)
        : args(a),
          plan(a.plan),
          rows(a.plan.rows),
          panels(panels_of(a.plan.hidden)),
          x_panels(panels_of(a.plan.input)),
          plane(rnn_plane(rows, a.plan.hidden)),
          x_plane(rnn_plane(rows, a.plan.input)),
          block(rnn_block(a.plan)),
          x(a.scratch),
          projected(x + plan.steps * x_plane),
          gathered(projected + block * 2 * plane),
          w_input(gathered + 2 * plane),
          weights(w_input + panels * x_panel_size()) {}

    Index x_panel_size() const { return x_panels * kLanes * kPair; }
    Index panel_size() const { return panels * kLanes * kPair; }
    const float* packed(int edge, Index p) const {
        return weights + ((edge + 1) * panels + p) * panel_size();
    }
    float* state(Index t) const { return args.saved + t * (3 * plan.nodes + 1) * plane; }
    float* node(Index t, Index level, int what) const {
        return state(t) + (1 + 3 * level + what) * plane;
    }
    const float* source(Index t, Index level, Index cell) const {
        const int from = plan.source[level * plan.cells + cell];
        return from < 0 ? state(t) : node(t, from, 2);
    }
};

// What the highway epilogue of some rows of one cell and one panel reads and writes.
struct Highway {
    const float* product;    // [row][gate, node]
    const float* projected;  // the same, or null
    const float* before;     // [row][lane] state that the node reads
    float* gate;
    float* value;
    float* after;
};

template <int ACTIVATION>
void highway(const Highway& h, Index rows) {
    for (Index r = 0; r < rows; ++r) {
        Vec gate = load(h.product + r * kPair);
        Vec value = load(h.product + r * kPair + kLanes);
        if (h.projected != nullptr) {
            gate += load(h.projected + r * kPair);
            value += load(h.projected + r * kPair + kLanes);
        }
        gate = sigmoid(gate);
        value = activate<ACTIVATION>(value);
        store(h.gate + r * kLanes, gate);
        store(h.value + r * kLanes, value);
        store(h.after + r * kLanes, gate * value + (1.0f - gate) * load(h.before + r * kLanes));
    }
}

void highway(const Highway& h, int activation, Index rows) {
    switch (activation) {
        case kTanh:
            return highway<kTanh>(h, rows);
        case kRelu:
            return highway<kRelu>(h, rows);
        case kIdentity:
            return highway<kIdentity>(h, rows);
        default:
            return highway<kSigmoid>(h, rows);
    }
}

// The rows of a group as one operand: in place, or copied together.
Panels operand(const Forward& f, Index t, Index level, const RnnGroup& group) {
    const Index first = f.plan.members[group.first];
    if (group.contiguous != 0) {
        return {f.source(t, level, first) + first * f.plan.batch * kLanes, f.rows * kLanes};
    }
    return {f.gathered + (level % 2) * f.plane + group.row * f.panels * kLanes,
            group.count * f.plan.batch * kLanes};
}

void gather(const Forward& f, Index t, Index level, Range own) {
    const Index batch = f.plan.batch;
    for (int g = f.plan.level[level]; g < f.plan.level[level + 1]; ++g) {
        const RnnGroup& group = f.plan.groups[g];
        if (group.contiguous != 0) {
            continue;
        }
        const Panels to = operand(f, t, level, group);
        for (Index p = own.begin; p < own.end; ++p) {
            for (Index i = 0; i < group.count; ++i) {
                const Index cell = f.plan.members[group.first + i];
                __builtin_memcpy(
                    const_cast<float*>(to.data) + p * to.stride + i * batch * kLanes,
                    f.source(t, level, cell) + (p * f.rows + cell * batch) * kLanes,
                    (std::size_t)(batch * kLanes) * sizeof(float));
            }
        }
    }
}

// Applies the highway to rows [begin, end) of a group, cell by cell.
void finish_tile(const Forward& f, Index t, Index level, const RnnGroup& group, Panels a, Index p,
                 Range part, const float* product) {
    const Index batch = f.plan.batch;
    for (Index row = part.begin; row < part.end;) {
        const Index cell = f.plan.members[group.first + row / batch];
        const Index inside = row % batch;
        const Index count = batch - inside < part.end - row ? batch - inside : part.end - row;
        const Index to = (p * f.rows + cell * batch + inside) * kLanes;
        const float* projected = nullptr;
        if (level == 0) {
            projected = f.projected + (t % f.block) * 2 * f.panels * f.rows * kLanes + 2 * to;
        }
        highway({product + (row - part.begin) * kPair, projected,
                 a.data + p * a.stride + row * kLanes, f.node(t, level, 0) + to,
                 f.node(t, level, 1) + to, f.node(t, level, 2) + to},
                f.plan.activation[level * f.plan.cells + cell], count);
        row += count;
    }
}

void run_level(const Forward& f, Index t, Index level, Range own) {
    alignas(64) float product[kTileRows * kPair];
    for (int g = f.plan.level[level]; g < f.plan.level[level + 1]; ++g) {
        const RnnGroup& group = f.plan.groups[g];
        const int after = g + 1 < f.plan.level[f.plan.nodes] ? f.plan.groups[g + 1].edge : -1;
        const Panels a = operand(f, t, level, group);
        const Tiles tiles = tiles_of(group.count * f.plan.batch);
        for (Index p = own.begin; p < own.end; ++p) {
            const float* const next =
                p + 1 < own.end ? f.packed(group.edge, p + 1) : f.packed(after, own.begin);
            for (Index i = 0; i < tiles.count; ++i) {
                const Range part = tile(tiles, i);
                multiply((int)(part.end - part.begin),
                         {a.data + part.begin * kLanes, a.stride}, f.packed(group.edge, p),
                         f.panels, prefetch(next, f.panels, tiles, i), product);
                finish_tile(f, t, level, group, a, p, part, product);
            }
        }
    }
}

// x W^T for the next steps.
void project(const Forward& f, Index t, Range own) {
    const Index end = t + f.block < f.plan.steps ? t + f.block : f.plan.steps;
    const Tiles tiles = tiles_of(f.rows);
    for (Index p = own.begin; p < own.end; ++p) {
        const float* const weights = f.w_input + p * f.x_panel_size();
        for (Index s = t; s < end; ++s) {
            for (Index i = 0; i < tiles.count; ++i) {
                const Range part = tile(tiles, i);
                multiply((int)(part.end - part.begin),
                         {f.x + s * f.x_plane + part.begin * kLanes, f.rows * kLanes}, weights,
                         f.x_panels, prefetch(weights + f.x_panel_size(), f.x_panels, tiles, i),
                         f.projected + (((s - t) * f.panels + p) * f.rows + part.begin) * kPair);
            }
        }
    }
}

// Averages the leaves of one cell into the output and the state of the next step.
void finish_cell(const Forward& f, Index t, Index cell, Range own) {
    const Index batch = f.plan.batch;
    const Index hidden = f.plan.hidden;
    const float scale = 1.0f / (float)f.plan.leaves[cell];
    const bool ends = t + 1 == f.plan.steps;
    for (Index p = own.begin; p < own.end; ++p) {
        const int lanes = lanes_of(hidden, p);
        for (Index r = cell * batch; r < (cell + 1) * batch; ++r) {
            const Index at = (p * f.rows + r) * kLanes;
            Vec mean{};
            for (Index level = 0; level < f.plan.nodes; ++level) {
                if (f.plan.leaf[level * f.plan.cells + cell] != 0) {
                    mean += load(f.node(t, level, 2) + at);
                }
            }
            mean *= scale;
            const Vec carried =
                f.plan.carry_last ? load(f.node(t, f.plan.nodes - 1, 2) + at) : mean;
            store_first(f.args.output + (t * f.rows + r) * hidden + p * kLanes, mean, lanes);
            if (ends) {
                store_first(f.args.state + r * hidden + p * kLanes, carried, lanes);
            } else {
                store(f.state(t + 1) + at, carried);
            }
        }
    }
}

// Weights [2 H, K] of gate panel p and node panel p, as [panels of K][lane][gate lanes, node lanes].
void pack_forward(const float* weights, Index hidden, Index width, Index p, float* out) {
    const int lanes = lanes_of(hidden, p);
    for (Index k = 0; k < width; k += kLanes) {
        const int ks = lanes_of(width, k / kLanes);
        for (int half = 0; half < 2; ++half) {
            Vec block[kLanes];
            const float* const from = weights + (half * hidden + p * kLanes) * width + k;
            for (int lane = 0; lane < kLanes; ++lane) {
                const bool full = lane < lanes && ks == kLanes;
                block[lane] = full           ? load(from + lane * width)
                              : lane < lanes ? load_first(from + lane * width, ks)
                                             : Vec{};
            }
            transpose(block);
            for (int i = 0; i < kLanes; ++i) {
                store(out + k * kPair + i * kPair + half * kLanes, block[i]);
            }
        }
    }
}

void pack_weights(const Forward& f, Range own) {
    for (Index p = own.begin; p < own.end; ++p) {
        pack_forward(f.args.w_input, f.plan.hidden, f.plan.input, p,
                     f.w_input + p * f.x_panel_size());
        for (int edge = -1; edge < f.plan.edges; ++edge) {
            pack_forward(edge < 0 ? f.args.w_hidden : f.args.edges[edge], f.plan.hidden,
                         f.plan.hidden, p, const_cast<float*>(f.packed(edge, p)));
        }
    }
}

// What lies between planes is part of what is saved: the same call must save the same values.
void clear_tails(const Forward& f, Range steps) {
    const Index used = f.panels * f.rows * kLanes;
    for (Index t = steps.begin; t < steps.end; ++t) {
        for (Index slot = 0; slot < 3 * f.plan.nodes + 1; ++slot) {
            __builtin_memset(f.state(t) + slot * f.plane + used, 0,
                             (std::size_t)(f.plane - used) * sizeof(float));
        }
    }
}

}  // namespace

void rnn_forward(const RnnForwardArgs& args) {
    const Forward f(args);
    const RnnPlan& plan = f.plan;
    if (plan.steps == 0) {
        __builtin_memcpy(args.state, args.h0,
                         (std::size_t)(f.rows * plan.hidden) * sizeof(float));
        return;
    }
#pragma omp parallel num_threads(args.threads)
    {
        const int part = omp_get_thread_num();
        const int parts = omp_get_num_threads();
        const Range own = share(f.panels, part, parts);
        const Range steps = share(plan.steps, part, parts);
        pack_weights(f, own);
        clear_tails(f, steps);
        for (Index t = steps.begin; t < steps.end; ++t) {
            for (Index p = 0; p < f.x_panels; ++p) {
                pack_panel(args.x + t * f.rows * plan.input, f.rows, plan.input, p,
                           f.x + t * f.x_plane);
            }
        }
        for (Index p = own.begin; p < own.end; ++p) {
            pack_panel(args.h0, f.rows, plan.hidden, p, f.state(0));
        }
        for (Index t = 0; t < plan.steps; ++t) {
            for (Index level = 0; level < plan.nodes; ++level) {
                gather(f, t, level, own);
#pragma omp barrier
                if (level == 0 && t % f.block == 0) {
                    project(f, t, own);
                }
                run_level(f, t, level, own);
            }
            for (Index cell = 0; cell < plan.cells; ++cell) {
                finish_cell(f, t, cell, own);
            }
        }
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
