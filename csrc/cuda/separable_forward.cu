// z = pointwise(depthwise(relu(norm(x)))) in one pass, with the statistics of z.
//
// A block computes a tile of 128 output pixels and 64 output channels. For 32 (16) input channels
// at a time it brings the input halo into shared memory, norm and ReLU applied, convolves it there,
// and multiplies the result by the pointwise weights on tensor cores. What the block knows of the
// statistics (count, mean, squared deviations of its pixels) goes to a workspace; a second launch
// merges that in a fixed order.
#include "cuda/api.h"
#include "cuda/matrix.cuh"
#include "cuda/tile.cuh"

namespace hwnas_cuda {
namespace {

constexpr int kPixels = 128;
constexpr int kOutputs = 64;  // output channels of a block
constexpr int kStagePitch = kOutputs + 4;
constexpr int kGroups = kThreads / kOutputs;  // of pixels, for the statistics

struct Regions {
    int halo, taps, norm, left, right;  // while multiplying
    int stage, groups;                  // afterwards, in the same place
    int bytes;
};

template <typename T>
__host__ __device__ Regions regions(const Tiling& tiling, int taps, int width) {
    Regions at{};
    const int pitch = width + Matrix<T>::kPad;
    Layout first;
    at.halo = first.take<T>(tiling.halo() * width);
    at.taps = first.take<float>(taps * width);
    at.norm = first.take<float>(3 * width);
    at.left = first.take<T>(kPixels * pitch);
    at.right = first.take<T>(kOutputs * pitch);
    Layout second;
    at.stage = second.take<float>(kPixels * kStagePitch);
    at.groups = second.take<float>(3 * kThreads);
    at.bytes = first.used() > second.used() ? first.used() : second.used();
    return at;
}

// Writes z rounded to T, and leaves the rounded values in `stage` for the statistics.
template <typename T, bool kWide>
__device__ __forceinline__ void write_tile(float* stage, const Shape& shape, const Tiling& tiling,
                                           const Place& at, int first, T* z) {
    constexpr int kSize = Pack<T>::kSize;
    constexpr int kPacks = kOutputs / kSize;
    for (int item = threadIdx.x; item < tiling.pixels() * kPacks; item += kThreads) {
        const int channel = item % kPacks * kSize;
        const int m = item / kPacks;
        const Place out = pixel_at(tiling, at, m);
        const int valid = shape.d - first - channel;
        if (valid <= 0 || !is_inside(out, shape.n, shape.p, shape.q)) {
            continue;
        }
        float* const from = stage + m * kStagePitch + channel;
        Pack<T> pack;
        load_floats(pack.value, from);
        const std::int64_t row = (out.image * shape.p + out.row) * shape.q + out.column;
        pack.template store<kWide>(z + row * shape.d + first + channel, valid);
#pragma unroll
        for (int i = 0; i < kSize; ++i) {
            from[i] = rounded<T>(pack.value[i]);
        }
    }
}

// partial [3][tiles][D]: count, mean, sum of squared deviations of this tile's pixels.
__device__ __forceinline__ void write_statistics(const float* stage, float* groups,
                                                 const Shape& shape, const Tiling& tiling,
                                                 const Place& at, int first, float* partial) {
    const int channel = threadIdx.x % kOutputs;
    const int group = threadIdx.x / kOutputs;
    float sum = 0.0f;
    float count = 0.0f;
    for (int m = group; m < tiling.pixels(); m += kGroups) {
        if (is_inside(pixel_at(tiling, at, m), shape.n, shape.p, shape.q)) {
            sum += stage[m * kStagePitch + channel];
            count += 1.0f;
        }
    }
    const float mean = sum / fmaxf(count, 1.0f);
    float squares = 0.0f;
    for (int m = group; m < tiling.pixels(); m += kGroups) {
        if (is_inside(pixel_at(tiling, at, m), shape.n, shape.p, shape.q)) {
            const float off = stage[m * kStagePitch + channel] - mean;
            squares += off * off;
        }
    }
    groups[threadIdx.x] = count;
    groups[kThreads + threadIdx.x] = mean;
    groups[2 * kThreads + threadIdx.x] = squares;
    __syncthreads();
    if (group != 0 || first + channel >= shape.d) {
        return;
    }
    float total = 0.0f;
    float center = 0.0f;
    for (int i = channel; i < kThreads; i += kOutputs) {
        total += groups[i];
        center += groups[i] * groups[kThreads + i];
    }
    center /= total;
    float all = 0.0f;
    for (int i = channel; i < kThreads; i += kOutputs) {
        const float off = groups[kThreads + i] - center;
        all += groups[2 * kThreads + i] + groups[i] * off * off;
    }
    const std::int64_t plane = tiling.tiles * shape.d;
    float* const own = partial + static_cast<std::int64_t>(blockIdx.x) * shape.d + first + channel;
    own[0] = total;
    own[plane] = center;
    own[2 * plane] = all;
}

template <typename T, bool kWide>
__global__ void __launch_bounds__(kThreads)
    separable_forward_kernel(Shape shape, Tiling tiling, int width, const T* __restrict__ x,
                             Norm norm, const T* __restrict__ depthwise,
                             const T* __restrict__ pointwise, T* __restrict__ z,
                             float* __restrict__ partial) {
    HWNAS_SHARED(shared);
    using M = Matrix<T>;
    const Regions at = regions<T>(tiling, shape.kernel * shape.kernel, width);
    T* const halo = reinterpret_cast<T*>(shared + at.halo);
    float* const taps = reinterpret_cast<float*>(shared + at.taps);
    T* const left = reinterpret_cast<T*>(shared + at.left);
    T* const right = reinterpret_cast<T*>(shared + at.right);
    float* const stage = reinterpret_cast<float*>(shared + at.stage);
    const NormTile norms = norm_tile(reinterpret_cast<float*>(shared + at.norm), width);

    const Place tile = corner(tiling, blockIdx.x);
    const int first = blockIdx.y * kOutputs;
    const int outputs = min(kOutputs, shape.d - first);
    const int pitch = width + M::kPad;
    const int line = threadIdx.x / 32 * 16;  // each warp multiplies 16 pixels
    typename M::Sum sum[kOutputs / 16];
#pragma unroll
    for (int i = 0; i < kOutputs / 16; ++i) {
        wmma::fill_fragment(sum[i], 0.0f);
    }

    for (int c = 0; c < shape.c; c += width) {
        fill_norm(norms, width, norm, c, shape.c);
        load_taps(taps, shape, depthwise, c, width);
        load_matrix<T, kWide>(right, pitch, kOutputs, width, pointwise, shape.d, shape.c, first, c);
        __syncthreads();
        load_halo<T, kWide>(halo, shape, tiling, tile, x, norms, c, width);
        __syncthreads();
        convolve(left, pitch, 0, kPixels, halo, taps, shape, tiling, width);
        __syncthreads();
        for (int k = 0; k < min(width, shape.c - c); k += M::kDepth) {
            Left<T, Rows> a;
            a.load(left + line * pitch + k, pitch);
#pragma unroll
            for (int i = 0; i < kOutputs / 16; ++i) {
                if (i * 16 < outputs) {
                    Right<T, Columns> b;
                    b.load(right + i * 16 * pitch + k, pitch);
                    M::multiply(sum[i], a, b);
                }
            }
        }
        __syncthreads();
    }

#pragma unroll
    for (int i = 0; i < kOutputs / 16; ++i) {
        wmma::store_matrix_sync(stage + line * kStagePitch + i * 16, sum[i], kStagePitch,
                                wmma::mem_row_major);
    }
    __syncthreads();
    write_tile<T, kWide>(stage, shape, tiling, tile, first, z);
    if (partial != nullptr) {
        __syncthreads();
        write_statistics(stage, reinterpret_cast<float*>(shared + at.groups), shape, tiling, tile,
                         first, partial);
    }
}

constexpr int kMergeChannels = 32;

// Mean and biased variance out of the tiles' parts, in double and in a fixed order.
__global__ void __launch_bounds__(kThreads)
    merge_statistics_kernel(const float* __restrict__ partial, std::int64_t tiles, int channels,
                            float* __restrict__ statistics) {
    HWNAS_SHARED(shared);
    double* const sums = reinterpret_cast<double*>(shared);
    double* const counts = sums + kThreads;
    const int lane = threadIdx.x % kMergeChannels;
    const int group = threadIdx.x / kMergeChannels;
    const int c = blockIdx.x * kMergeChannels + lane;
    const std::int64_t plane = tiles * channels;
    double sum = 0.0;
    double count = 0.0;
    for (std::int64_t i = group; i < tiles && c < channels; i += kThreads / kMergeChannels) {
        const float* const from = partial + i * channels + c;
        sum += static_cast<double>(from[0]) * from[plane];
        count += from[0];
    }
    sums[threadIdx.x] = sum;
    counts[threadIdx.x] = count;
    __syncthreads();
    double total = 0.0;
    double mean = 0.0;
    for (int i = lane; i < kThreads; i += kMergeChannels) {
        total += counts[i];
        mean += sums[i];
    }
    mean /= total;
    __syncthreads();
    double squares = 0.0;
    for (std::int64_t i = group; i < tiles && c < channels; i += kThreads / kMergeChannels) {
        const float* const from = partial + i * channels + c;
        const double off = from[plane] - mean;
        squares += from[2 * plane] + from[0] * off * off;
    }
    sums[threadIdx.x] = squares;
    __syncthreads();
    if (group != 0 || c >= channels) {
        return;
    }
    double all = 0.0;
    for (int i = lane; i < kThreads; i += kMergeChannels) {
        all += sums[i];
    }
    statistics[c] = static_cast<float>(mean);
    statistics[channels + c] = static_cast<float>(all / total);
}

struct Choice {
    Tiling tiling;
    int width, bytes;
};

template <typename T>
Choice choose(const Shape& shape) {
    const int width = shape.c <= 16 ? 16 : 32;
    const int taps = shape.kernel * shape.kernel;
    const auto bytes = [&](const Tiling& each) { return regions<T>(each, taps, width).bytes; };
    const Tiling tiling = choose_tiling(
        shape.n, shape.p, shape.q, kPixels,
        [&](int size) { return (size - 1) * shape.stride + reach(shape) + 1; }, bytes);
    return {tiling, width, bytes(tiling)};
}

template <typename T>
void run(const Shape& shape, const void* x, const Norm& norm, const void* depthwise,
         const void* pointwise, void* z, float* statistics, void* workspace, void* stream,
         bool wide) {
    const Choice choice = choose<T>(shape);
    const dim3 grid(static_cast<unsigned>(choice.tiling.tiles), (shape.d + kOutputs - 1) / kOutputs);
    float* const partial = statistics == nullptr ? nullptr : static_cast<float*>(workspace);
    launch(wide ? separable_forward_kernel<T, true> : separable_forward_kernel<T, false>, grid,
           kThreads, choice.bytes, stream, shape, choice.tiling, choice.width,
           static_cast<const T*>(x), norm, static_cast<const T*>(depthwise),
           static_cast<const T*>(pointwise), static_cast<T*>(z), partial);
    if (statistics != nullptr) {
        launch(merge_statistics_kernel, dim3((shape.d + kMergeChannels - 1) / kMergeChannels),
               kThreads, 2 * kThreads * static_cast<int>(sizeof(double)), stream, partial,
               choice.tiling.tiles, shape.d, statistics);
    }
}

}  // namespace

std::size_t separable_workspace(Type type, const Shape& shape) {
    const Tiling tiling = (type == Type::kFloat ? choose<float>(shape) : choose<__half>(shape)).tiling;
    return static_cast<std::size_t>(3 * tiling.tiles * shape.d) * sizeof(float);
}

void separable(Type type, const Shape& shape, const void* x, const Norm& norm,
               const void* depthwise, const void* pointwise, void* z, float* statistics,
               void* workspace, void* stream) {
    const bool wide = is_wide(type, shape.c, x, pointwise) && is_wide(type, shape.d, z);
    const auto call = [&](auto run_as) {
        run_as(shape, x, norm, depthwise, pointwise, z, statistics, workspace, stream, wide);
    };
    switch (type) {
        case Type::kFloat: return call(run<float>);
        case Type::kHalf: return call(run<__half>);
        case Type::kBfloat16: return call(run<__nv_bfloat16>);
    }
}

}  // namespace hwnas_cuda
