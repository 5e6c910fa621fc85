// The gated sum of branches: the one pass in which each branch's last norm is applied.
#pragma once

#include <cstdint>

#include "cpu/isa.h"
#include "cpu/norm.h"

namespace hwnas {

// y = sum of gates[b] * [relu] norms[b](zs[b]).
struct CombineArgs {
    const float* const* zs;  // [branches] of [pixels, channels]
    const Norm* norms;       // [branches]
    const float* gates;      // [branches]
    int branches;
    bool relu;
    std::int64_t pixels;  // N * P * Q
    int channels;
    float* y;
    int threads;
};

// For each branch, sums over the pixels of g = dy (0 where a ReLU follows and the norm is not
// positive) and of g * zhat (g * z without a norm).
struct CombineBackwardArgs {
    const float* dy;
    const float* const* zs;  // [branches]; where one is null its second sum has no meaning
    const Norm* norms;
    int branches;
    bool relu;
    std::int64_t pixels;
    int channels;
    float* sums;  // [branches, 2, channels]
    int threads;
};

// dx = dz, or dx += dz.
struct AccumulateArgs {
    Upstream up;
    std::int64_t pixels;
    int channels;
    float* dx;
    bool accumulate;
    int threads;
};

HWNAS_KERNEL(combine, CombineArgs)
HWNAS_KERNEL(combine_backward, CombineBackwardArgs)
HWNAS_KERNEL(accumulate, AccumulateArgs)

}  // namespace hwnas
