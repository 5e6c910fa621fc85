// The sampled ENAS recurrent cell over all time steps, for several cells at once.
//
// Everything inside lives in *panels*: a [rows, features] matrix is stored as [panel][row][lane],
// kLanes features a panel, the last one filled up with finite values. A row tile of a panel is
// contiguous, so that the GEMM, its epilogue and the gradient of the weights all read the same
// memory without packing it.
#pragma once

#include <cstdint>

#include "cpu/isa.h"
#include "cpu/rnn_plan.h"

namespace hwnas {

// Floats that sizes with the widest lanes need; a narrower instruction set needs at most as many.
struct RnnMemory {
    static std::int64_t pad(std::int64_t features) { return (features + 15) / 16 * 16; }

    // One plane holds [rows, features]; the odd length keeps planes out of each other's cache sets.
    static std::int64_t plane(std::int64_t rows, std::int64_t features) {
        return rows * pad(features) + 272;
    }

    // The carried state, then c, n and h of each node, for each step.
    static std::int64_t saved(const RnnPlan& p) {
        return p.steps * (3 * p.nodes + 1) * plane(p.rows(), p.hidden);
    }

    static std::int64_t forward(const RnnPlan& p);
    static std::int64_t backward(const RnnPlan& p);
};

struct RnnForwardArgs {
    RnnPlan plan;
    const float* x;              // [T, R, E]
    const float* h0;             // [R, H]
    const float* w_input;        // [2 H, E]
    const float* w_hidden;       // [2 H, H]
    const float* const* edges;   // [2 H, H] each
    float* output;               // [T, R, H]
    float* state;                // [R, H]
    float* saved;                // RnnMemory::saved
    float* scratch;              // RnnMemory::forward
    int threads;
};

struct RnnBackwardArgs {
    RnnPlan plan;
    const float* d_output;       // [T, R, H]
    const float* d_state;        // [R, H]
    const float* saved;
    const float* x;
    const float* w_input;
    const float* w_hidden;
    const float* const* edges;
    float* dx;                   // [T, R, E]
    float* dh0;                  // [R, H]
    float* dw_input;
    float* dw_hidden;
    float* const* d_edges;
    float* scratch;              // RnnMemory::backward
    int threads;
};

}  // namespace hwnas

namespace hwnas {
HWNAS_KERNEL(rnn_forward, RnnForwardArgs)
HWNAS_KERNEL(rnn_backward, RnnBackwardArgs)
}  // namespace hwnas
