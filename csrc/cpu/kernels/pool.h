// Max and average pooling without the padding, and their gradients.
#pragma once

#include <cstdint>

#include "cpu/isa.h"
#include "cpu/kernels/window.h"
#include "cpu/norm.h"

namespace hwnas {

constexpr int kMostPoolTaps = 15;  // on a side: an index is a byte, and 255 is none

struct PoolArgs {
    Window window;
    const float* x;
    float* z;
    std::uint8_t* index;  // of the tap that won, row-major; null: average
    float* statistics;    // [2, channels]; null: not wanted
    int threads;
};

struct PoolBackwardArgs {
    Window window;
    Upstream up;
    const std::uint8_t* index;  // null: average
    float* dx;
    bool accumulate;
    int threads;
};

HWNAS_KERNEL(max_pool, PoolArgs)
HWNAS_KERNEL(average_pool, PoolArgs)
HWNAS_KERNEL(max_pool_backward, PoolBackwardArgs)
HWNAS_KERNEL(average_pool_backward, PoolBackwardArgs)

}  // namespace hwnas
