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

struct RnnForwardArgs {
    RnnPlan plan;
    const float* x;              // [T, R, E]
    const float* h0;             // [R, H]
    const float* w_input;        // [2 H, E]
    const float* w_hidden;       // [2 H, H]
    const float* const* edges;   // [2 H, H] each
    float* output;               // [T, R, H]
    float* state;                // [R, H]
    float* saved;                // rnn_saved
    float* scratch;              // rnn_forward_scratch
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
    float* scratch;              // rnn_backward_scratch
    int threads;
};

HWNAS_KERNEL(rnn_forward, RnnForwardArgs)
HWNAS_KERNEL(rnn_backward, RnnBackwardArgs)
}  // namespace hwnas
