// Enough of CUDA C++ to run the kernels of csrc/cuda on the CPU, for tests. Every thread of a block
// is a fiber; barriers and warp operations switch between them. Blocks run one after the other, so
// atomics need no care. The shim is stricter than a GPU: a barrier that not all threads of the block
// (warp) reach at the same line is an error, so is shared memory beyond what the launch asked for or
// a device has, and shared memory starts as NaN.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define HWNAS_SHARED(name) unsigned char* const name = ::hwnas_shim::shared_memory()

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

struct alignas(16) float4 {
    float x, y, z, w;
};

inline void __stwb(uint4* address, uint4 value) { *address = value; }

inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace hwnas_shim {

// Runs `kernel` once for every thread of every block. Throws std::runtime_error if threads disagree
// about a barrier, or if shared memory is not to be had.
void run(dim3 grid, dim3 block, int shared, bool is_opted_in, const std::function<void()>& kernel);

// Whether the threads of a block start from the last; a missing barrier then shows as other results.
void set_reversed(bool is_reversed);

unsigned char* shared_memory();
const dim3& thread_index();
const dim3& block_index();
const dim3& block_size();
const dim3& grid_size();
void block_barrier(const char* file, int line);
void warp_barrier(const char* file, int line);

// A slot for each lane of the calling thread's warp.
std::uint64_t* warp_slots();
int lane();

template <typename T>
T shuffled(T value, int source, const char* file, int line) {
    static_assert(sizeof(T) <= sizeof(std::uint64_t));
    std::memcpy(&warp_slots()[lane()], &value, sizeof(T));
    warp_barrier(file, line);
    T found;
    std::memcpy(&found, &warp_slots()[source], sizeof(T));
    warp_barrier(file, line);
    return found;
}

}  // namespace hwnas_shim

#define threadIdx (::hwnas_shim::thread_index())
#define blockIdx (::hwnas_shim::block_index())
#define blockDim (::hwnas_shim::block_size())
#define gridDim (::hwnas_shim::grid_size())
#define __syncthreads() ::hwnas_shim::block_barrier(__FILE__, __LINE__)
#define __syncwarp() ::hwnas_shim::warp_barrier(__FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, distance) \
    ::hwnas_shim::shuffled(value, ::hwnas_shim::lane() ^ (distance), __FILE__, __LINE__)

inline void __threadfence() {}

inline int atomicAdd(int* address, int value) {
    const int before = *address;
    *address += value;
    return before;
}

using std::max;
using std::min;

#include "host_shim/half.h"
#include "host_shim/mma.h"
