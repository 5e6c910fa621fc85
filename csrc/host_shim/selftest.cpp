#include "host_shim/selftest.h"

#include <stdexcept>

namespace hwnas_shim {
namespace {

constexpr int kThreads = 64;

void fine() {
    HWNAS_SHARED(shared);
    float* const values = reinterpret_cast<float*>(shared);
    values[threadIdx.x] = 1.0f;
    __syncthreads();
    const float other = __shfl_xor_sync(0xffffffffu, values[threadIdx.x], 1);
    values[threadIdx.x] = other;
}

void diverging_block() {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();  // another barrier, for all that the shim knows
    }
}

void diverging_warp() {
    if (threadIdx.x % 2 == 0) {
        __syncwarp();
    }
    __syncthreads();
}

void early_exit() {
    if (threadIdx.x == 5) {
        return;
    }
    __syncthreads();
}

void overflow() {
    HWNAS_SHARED(shared);
    reinterpret_cast<float*>(shared)[threadIdx.x + 1] = 1.0f;
}

}  // namespace

void provoke(const std::string& mistake) {
    constexpr int kBytes = kThreads * static_cast<int>(sizeof(float));
    const dim3 block(kThreads);
    if (mistake == "block_barrier") {
        run(dim3(1), block, kBytes, false, diverging_block);
    } else if (mistake == "warp_barrier") {
        run(dim3(1), block, kBytes, false, diverging_warp);
    } else if (mistake == "early_exit") {
        run(dim3(1), block, kBytes, false, early_exit);
    } else if (mistake == "shared_memory") {
        run(dim3(1), block, 48 * 1024 + 1, false, fine);
    } else if (mistake == "overflow") {
        run(dim3(1), block, kBytes, false, overflow);
    } else if (mistake == "none") {
        run(dim3(1), block, kBytes, false, fine);
    } else {
        throw std::invalid_argument("no such mistake: " + mistake);
    }
}

}  // namespace hwnas_shim
