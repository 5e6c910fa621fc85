// Gradients of the separable stage in two launches, each in a file of its own:
//
// 1. `separable_backward_matrix.cu`: for a tile of output pixels and 64 input channels, recomputes
//    t, the depthwise convolution of relu(norm(x)), computes dz on the fly for 64 output channels
//    at a time, and multiplies on tensor cores: dt = dz * pointwise, which goes to a workspace, and
//    this block's part of d_pointwise = transpose(dz) * t.
// 2. `separable_backward_depthwise.cu`: for a tile of input pixels, gathers dt: du for `dx` and the
//    norm's sums, and d_depthwise. Its blocks also sum the parts of d_pointwise, a slice each; the
//    last block to end for its channels sums the parts of d_depthwise and of the norm's sums. All
//    sums have a fixed order, whichever block is last.
//
// `separable_backward.cu` chooses the tiles and divides the workspace.
#pragma once

#include "cuda/api.h"
#include "cuda/matrix.cuh"
#include "cuda/tile.cuh"

namespace hwnas_cuda {
namespace backward {

constexpr int kChannels = 64;     // of the input and of the output, at a time
constexpr int kPitch = kChannels + 4;  // of floats in `stage`
constexpr int kMostParts = 512;   // blocks of a launch that have a part of their own
constexpr int kOwn = 2;           // pixels of a thread of the depthwise kernel

// Output pixels of a tile of the matrix kernel: as many bytes whatever the type.
template <typename T>
constexpr int kTile = 256 / static_cast<int>(sizeof(T));

// What both kernels know. Workspace: dt [N, P, Q, C], parts of d_pointwise [matrix_parts][D][C], of
// d_depthwise and the sums [depthwise_parts][taps + 2][C], and counters, one for each 16 channels.
struct Plan {
    Tiling outputs, inputs;
    int halo_width;   // channels of the matrix kernel's halo
    int tile_width;   // channels of a block of the depthwise kernel
    int matrix_parts, depthwise_parts;
    int matrix_bytes, depthwise_bytes;
    std::int64_t dt, pointwise, depthwise, counters, bytes;  // offsets in the workspace
};

struct MatrixRegions {
    int t;
    int halo, taps, norm;        // while convolving
    int dz, weights, upstream;   // while multiplying, in the same place
    int stage;                   // for results, in the same place
    int bytes;
};

template <typename T>
__host__ __device__ MatrixRegions matrix_regions(const Tiling& tiling, int taps, int halo_width) {
    constexpr int kPadded = kChannels + Matrix<T>::kPad;
    MatrixRegions at{};
    Layout layout;
    at.t = layout.take<T>(kTile<T> * kPadded);
    Layout convolving = layout;
    at.halo = convolving.take<T>(tiling.halo() * halo_width);
    at.taps = convolving.take<float>(taps * halo_width);
    at.norm = convolving.take<float>(3 * halo_width);
    Layout multiplying = layout;
    at.dz = multiplying.take<T>(kTile<T> * kPadded);
    at.weights = multiplying.take<T>(kChannels * kPadded);
    at.upstream = multiplying.take<float>(kUpstreamRows * kChannels);
    Layout results = layout;
    at.stage = results.take<float>((kTile<T> > kChannels ? kTile<T> : kChannels) * kPitch);
    at.bytes = convolving.used();
    at.bytes = multiplying.used() > at.bytes ? multiplying.used() : at.bytes;
    at.bytes = results.used() > at.bytes ? results.used() : at.bytes;
    return at;
}

struct DepthwiseRegions {
    int dt, x, u, taps, norm, parts, bytes;
};

// Input pixels of a tile of the depthwise kernel: two for each thread.
template <typename T>
__host__ __device__ int tile_pixels(int width) {
    return kOwn * kThreads * Pack<T>::kSize / width;
}

template <typename T>
__host__ __device__ DepthwiseRegions depthwise_regions(const Tiling& tiling, int taps, int width) {
    DepthwiseRegions at{};
    Layout layout;
    at.dt = layout.take<T>(tiling.halo() * width);
    at.x = layout.take<T>(tile_pixels<T>(width) * width);
    at.u = layout.take<T>(tile_pixels<T>(width) * width);
    at.taps = layout.take<float>(taps * width);
    at.norm = layout.take<float>(4 * width);
    at.parts = layout.take<float>(kWarps * (taps + 2) * width + 32);
    at.bytes = layout.used();
    return at;
}

// What both launches are given; dt lies in the workspace.
template <typename T>
struct Call {
    Shape shape;
    Plan plan;
    Upstream up;
    const T* x;
    Norm norm;
    const T* depthwise;
    const T* pointwise;
    T* dx;
    bool accumulate;
    T* d_depthwise;
    T* d_pointwise;
    float* sums;
    T* dt;
    unsigned char* workspace;
    void* stream;
    bool wide;
};

// For float, __half and __nv_bfloat16.
template <typename T>
void launch_matrix(const Call<T>& call);
template <typename T>
void launch_depthwise(const Call<T>& call);

}  // namespace backward
}  // namespace hwnas_cuda
