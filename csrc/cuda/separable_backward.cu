// Gradients of the separable stage in two launches.
//
// 1. `matrix_kernel`: for a tile of output pixels and 64 input channels, recomputes t, the depthwise
//    convolution of relu(norm(x)), computes dz on the fly for 64 output channels at a time, and
//    multiplies on tensor cores: dt = dz * pointwise, which goes to a workspace, and this block's
//    part of d_pointwise = transpose(dz) * t.
// 2. `depthwise_kernel`: for a tile of input pixels, gathers dt: du for `dx` and the norm's sums, and
//    d_depthwise. Its blocks also sum the parts of d_pointwise, a slice each; the last block to end
//    for its channels sums the parts of d_depthwise and of the norm's sums. All sums have a fixed
//    order, whichever block is last.
#include "cuda/api.h"
#include "cuda/matrix.cuh"
#include "cuda/tile.cuh"

namespace hwnas_cuda {
namespace {

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

// -- first launch ---------------------------------------------------------------------------------

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

// dz of a tile's pixels for 64 output channels from `first` on, rounded to T; zero outside.
template <typename T, bool kWide>
__device__ __forceinline__ void load_dz(T* dz, const Shape& shape, const Tiling& tiling,
                                        const Place& at, const Upstream& up,
                                        const UpstreamTile& coefficients, int first) {
    constexpr int kSize = Pack<T>::kSize;
    constexpr int kPacks = kChannels / kSize;
#pragma unroll 1
    for (int item = threadIdx.x; item < kTile<T> * kPacks; item += kThreads) {
        const int channel = item % kPacks * kSize;
        const int m = item / kPacks;
        const Place out = pixel_at(tiling, at, m);
        const int valid = shape.d - first - channel;
        Raw<T> g;
        if (valid > 0 && m < tiling.pixels() && is_inside(out, shape.n, shape.p, shape.q)) {
            const std::int64_t row = (out.image * shape.p + out.row) * shape.q + out.column;
            const T* const nothing = nullptr;
            g = gradient_of_z<T, kWide>(up, coefficients, row * shape.d + first + channel, channel,
                                        valid, nothing);
        }
        g.keep(dz + m * (kChannels + Matrix<T>::kPad) + channel);
    }
}

// Overwrites or adds to part [D][C] the 64 x 64 results in `stage`.
template <bool kWide>
__device__ __forceinline__ void put_part(float* part, const float* stage, const Shape& shape, int d,
                                         int c, bool add) {
    constexpr int kPacks = kChannels / 4;
#pragma unroll 1
    for (int item = threadIdx.x; item < kChannels * kPacks; item += kThreads) {
        const int column = item % kPacks * 4;
        const int row = item / kPacks;
        const int valid = shape.c - c - column;
        if (valid <= 0 || d + row >= shape.d) {
            continue;
        }
        float* const to = part + static_cast<std::int64_t>(d + row) * shape.c + c + column;
        Pack<float> sum;
        Pack<float> before;
        sum.load(stage + row * kPitch + column);
        before.clear();
        if (add) {
            before.load<kWide>(to, valid);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            sum.value[i] += before.value[i];
        }
        sum.store<kWide>(to, valid);
    }
}

template <typename T, bool kWide>
__device__ __forceinline__ void write_dt(T* dt, const float* stage, const Shape& shape,
                                         const Tiling& tiling, const Place& at, int c) {
    constexpr int kSize = Pack<T>::kSize;
    constexpr int kPacks = kChannels / kSize;
#pragma unroll 1
    for (int item = threadIdx.x; item < tiling.pixels() * kPacks; item += kThreads) {
        const int channel = item % kPacks * kSize;
        const int m = item / kPacks;
        const Place out = pixel_at(tiling, at, m);
        const int valid = shape.c - c - channel;
        if (valid > 0 && is_inside(out, shape.n, shape.p, shape.q)) {
            const std::int64_t row = (out.image * shape.p + out.row) * shape.q + out.column;
            Pack<T> each;
            load_floats(each.value, stage + m * kPitch + channel);
            each.template store<kWide>(dt + row * shape.c + c + channel, valid);
        }
    }
}

template <typename T, bool kWide>
__global__ void __launch_bounds__(kThreads, 1)
    separable_backward_matrix_kernel(Shape shape, Plan plan, Upstream up, const T* __restrict__ x,
                                     Norm norm, const T* __restrict__ depthwise,
                                     const T* __restrict__ pointwise, T* __restrict__ dt,
                                     unsigned char* __restrict__ workspace) {
    HWNAS_SHARED(shared);
    using M = Matrix<T>;
    constexpr int kPadded = kChannels + M::kPad;
    constexpr int kLines = kTile<T> / 16;            // rows of 16 x 16 products in dt
    constexpr int kSums = kLines * 4 / kWarps;       // products of one warp in dt
    const Tiling& tiling = plan.outputs;
    const MatrixRegions at =
        matrix_regions<T>(tiling, shape.kernel * shape.kernel, plan.halo_width);
    T* const t = reinterpret_cast<T*>(shared + at.t);
    T* const dz = reinterpret_cast<T*>(shared + at.dz);
    T* const weights = reinterpret_cast<T*>(shared + at.weights);
    T* const halo = reinterpret_cast<T*>(shared + at.halo);
    float* const taps = reinterpret_cast<float*>(shared + at.taps);
    float* const stage = reinterpret_cast<float*>(shared + at.stage);
    const NormTile norms = norm_tile(reinterpret_cast<float*>(shared + at.norm), plan.halo_width);
    const UpstreamTile coefficients =
        upstream_tile(reinterpret_cast<float*>(shared + at.upstream), kChannels);

    const int warp = threadIdx.x / 32;
    const int line = warp * kSums / 4 * 16;          // this warp's pixels in dt,
    const int column = warp * kSums % 4 * 16;        // its first channel there,
    const int w_line = warp / 2 * 16;                // and its output channels
    const int w_column = warp % 2 * 32;              // and input channels in d_pointwise
    const int c = blockIdx.y * kChannels;
    const int inputs = min(kChannels, shape.c - c);
    float* const part = reinterpret_cast<float*>(workspace + plan.pointwise) +
                        static_cast<std::int64_t>(blockIdx.x) * shape.d * shape.c;
    // One step of output channels: the sums stay in registers from tile to tile.
    const bool is_kept = shape.d <= kChannels;
    typename M::Sum w_sum[2];
    wmma::fill_fragment(w_sum[0], 0.0f);
    wmma::fill_fragment(w_sum[1], 0.0f);

    if (blockIdx.x == 0 && threadIdx.x == 0) {
        int* const counters = reinterpret_cast<int*>(workspace + plan.counters);
        for (int i = c / 16; i < (c + kChannels) / 16; ++i) {
            counters[i] = 0;
        }
    }
    for (std::int64_t tile = blockIdx.x; tile < tiling.tiles; tile += gridDim.x) {
        const Place place = corner(tiling, tile);
        for (int left = 0; left < kChannels; left += plan.halo_width) {
            __syncthreads();
            fill_norm(norms, plan.halo_width, norm, c + left, shape.c);
            load_taps(taps, shape, depthwise, c + left, plan.halo_width);
            __syncthreads();
            load_halo<T, kWide>(halo, shape, tiling, place, x, norms, c + left, plan.halo_width);
            __syncthreads();
            convolve(t, kPadded, left, kTile<T>, halo, taps, shape, tiling, plan.halo_width);
        }
        typename M::Sum sum[kSums];
#pragma unroll
        for (int i = 0; i < kSums; ++i) {
            wmma::fill_fragment(sum[i], 0.0f);
        }
        for (int d = 0; d < shape.d; d += kChannels) {
            const int outputs = min(kChannels, shape.d - d);
            __syncthreads();
            fill_upstream(coefficients, kChannels, up, d, shape.d);
            load_matrix<T, kWide>(weights, kPadded, kChannels, kChannels, pointwise, shape.d,
                                  shape.c, d, c);
            __syncthreads();
            load_dz<T, kWide>(dz, shape, tiling, place, up, coefficients, d);
            __syncthreads();
#pragma unroll 1
            for (int k = 0; k < outputs; k += M::kDepth) {
                Left<T, Rows> a;
                a.load(dz + line * kPadded + k, kPadded);
#pragma unroll
                for (int i = 0; i < kSums; ++i) {
                    if (column + i * 16 < inputs) {
                        Right<T, Rows> b;
                        b.load(weights + k * kPadded + column + i * 16, kPadded);
                        M::multiply(sum[i], a, b);
                    }
                }
            }
            if (w_line < outputs && w_column < inputs) {
#pragma unroll 1
                for (int k = 0; k < kTile<T>; k += M::kDepth) {
                    Left<T, Columns> a;
                    a.load(dz + k * kPadded + w_line, kPadded);
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        Right<T, Rows> b;
                        b.load(t + k * kPadded + w_column + i * 16, kPadded);
                        M::multiply(w_sum[i], a, b);
                    }
                }
            }
            if (!is_kept || tile + gridDim.x >= tiling.tiles) {
                __syncthreads();
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    wmma::store_matrix_sync(stage + w_line * kPitch + w_column + i * 16, w_sum[i],
                                            kPitch, wmma::mem_row_major);
                    wmma::fill_fragment(w_sum[i], 0.0f);
                }
                __syncthreads();
                put_part<kWide>(part, stage, shape, d, c, !is_kept && tile != blockIdx.x);
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kSums; ++i) {
            wmma::store_matrix_sync(stage + line * kPitch + column + i * 16, sum[i], kPitch,
                                    wmma::mem_row_major);
        }
        __syncthreads();
        write_dt<T, kWide>(dt, stage, shape, tiling, place, c);
    }
}

// -- second launch --------------------------------------------------------------------------------

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

__device__ __forceinline__ int floor_divided(int a, int b) {
    return a >= 0 ? a / b : -((b - 1 - a) / b);
}

// Output pixels whose windows reach a tile of input pixels; zero outside the image.
template <typename T, bool kWide>
__device__ __forceinline__ void load_outputs(T* halo, const Shape& shape, const Tiling& tiling,
                                             const Place& first, const T* dt, int c, int width) {
    constexpr int kSize = Pack<T>::kSize;
    const int packs = width / kSize;
#pragma unroll 1
    for (int item = threadIdx.x; item < tiling.halo() * packs; item += kThreads) {
        const int channel = item % packs * kSize;
        const int pixel = item / packs;
        const int line = pixel / tiling.halo_columns;
        const Place out = {first.image + line / tiling.halo_rows,
                           first.row + line % tiling.halo_rows,
                           first.column + pixel % tiling.halo_columns};
        const int valid = shape.c - c - channel;
        Pack<T> each;
        each.clear();
        if (valid > 0 && is_inside(out, shape.n, shape.p, shape.q)) {
            const std::int64_t row = (out.image * shape.p + out.row) * shape.q + out.column;
            each.template load<kWide>(dt + row * shape.c + c + channel, valid);
        }
        each.store(halo + pixel * width + channel);
    }
}

// Adds each lane's values over the lanes of its warp with the same channels, to the warp's slot.
template <int kSize>
__device__ __forceinline__ void add_to_slot(float* slot, float (&value)[kSize], int packs,
                                            int channel) {
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
        for (int distance = packs; distance < 32; distance *= 2) {
            value[i] += __shfl_xor_sync(0xffffffffu, value[i], distance);
        }
    }
    if (static_cast<int>(threadIdx.x) % 32 < packs) {
#pragma unroll
        for (int i = 0; i < kSize; ++i) {
            slot[channel + i] += value[i];
        }
    }
}

// The sum over parts of [parts][size], for this block's slice of [size].
template <typename T, bool kWide>
__device__ __forceinline__ void sum_slice(const float* parts, int count, std::int64_t size,
                                          T* target) {
    constexpr int kSize = kWide ? 4 : 1;
    const std::int64_t block = blockIdx.y * gridDim.x + blockIdx.x;
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * gridDim.y * kThreads * kSize;
    for (std::int64_t i = (block * kThreads + threadIdx.x) * kSize; i < size; i += step) {
        float sum[kSize] = {};
        for (int part = 0; part < count; ++part) {
            const float* const from = parts + part * size + i;
            float each[kSize];
            if constexpr (kWide) {
                load_floats(each, from);
            } else {
                each[0] = *from;
            }
#pragma unroll
            for (int j = 0; j < kSize; ++j) {
                sum[j] += each[j];
            }
        }
#pragma unroll
        for (int j = 0; j < kSize; ++j) {
            target[i + j] = from_float<T>(sum[j]);
        }
    }
}

// The last of this row of blocks sums what all of them have left in parts [gridDim.x][rows][C].
template <typename T>
__device__ __forceinline__ void finish(const float* parts, int* counter, float* shared,
                                       const Shape& shape, int c, int width, T* d_depthwise,
                                       float* sums) {
    int* const is_last = reinterpret_cast<int*>(shared);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        *is_last = atomicAdd(counter, 1) == static_cast<int>(gridDim.x) - 1;
    }
    __syncthreads();
    if (*is_last == 0) {
        return;
    }
    __threadfence();
    const int taps = shape.kernel * shape.kernel;
#pragma unroll 1
    for (int item = threadIdx.x; item < (taps + 2) * width; item += kThreads) {
        const int row = item / width;
        const int channel = c + item % width;
        if (channel >= shape.c) {
            continue;
        }
        double sum = 0.0;
        for (unsigned part = 0; part < gridDim.x; ++part) {
            sum += parts[(static_cast<std::int64_t>(part) * (taps + 2) + row) * shape.c + channel];
        }
        if (row < taps) {
            d_depthwise[channel * taps + row] = from_float<T>(static_cast<float>(sum));
        } else if (sums != nullptr) {
            sums[(row - taps) * shape.c + channel] = static_cast<float>(sum);
        }
    }
}

// At most 64 registers, 85 where a processor keeps more of them busy with less.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr int kBlocks = 3;
#else
constexpr int kBlocks = 4;
#endif

// A thread owns a pack of channels at two of the tile's pixels. Taps are the outer loop, so
// that one tap's gradient is all that has to be held.
template <typename T, bool kWide>
__global__ void __launch_bounds__(kThreads, kBlocks)
    separable_backward_depthwise_kernel(Shape shape, Plan plan, const T* __restrict__ x, Norm norm,
                                        const T* __restrict__ depthwise, T* __restrict__ dx,
                                        bool accumulate, T* __restrict__ d_depthwise,
                                        T* __restrict__ d_pointwise, float* __restrict__ sums,
                                        const T* __restrict__ from,
                                        unsigned char* __restrict__ workspace) {
    HWNAS_SHARED(shared);
    constexpr int kSize = Pack<T>::kSize;
    const Tiling& tiling = plan.inputs;
    const int taps = shape.kernel * shape.kernel;
    const int width = plan.tile_width;
    const DepthwiseRegions at = depthwise_regions<T>(tiling, taps, width);
    T* const dt = reinterpret_cast<T*>(shared + at.dt);
    T* const kept = reinterpret_cast<T*>(shared + at.x);
    T* const kept_u = reinterpret_cast<T*>(shared + at.u);
    float* const weights = reinterpret_cast<float*>(shared + at.taps);
    float* const norm_floats = reinterpret_cast<float*>(shared + at.norm);
    float* const slots = reinterpret_cast<float*>(shared + at.parts);
    const NormTile norms = norm_tile(norm_floats, width);
    float* const inverse = norm_floats + 3 * width;

    const int c = blockIdx.y * width;
    const int packs = width / kSize;
    const int channel = threadIdx.x % packs * kSize;
    const int own = threadIdx.x / packs;      // the first of this thread's pixels
    const int step = kThreads / packs;
    const int valid = shape.c - c - channel;
    float* const slot = slots + threadIdx.x / 32 * (taps + 2) * width;

    sum_slice<T, kWide>(reinterpret_cast<const float*>(workspace + plan.pointwise),
                        plan.matrix_parts, static_cast<std::int64_t>(shape.d) * shape.c,
                        d_pointwise);
    fill_norm(norms, width, norm, c, shape.c);
    load_taps(weights, shape, depthwise, c, width);
    for (int i = threadIdx.x; i < width; i += kThreads) {
        const bool is_norm = norm.mean != nullptr && c + i < shape.c;
        inverse[i] = is_norm ? inverse_deviation(norm, c + i) : 0.0f;
    }
    for (int i = threadIdx.x; i < kWarps * (taps + 2) * width; i += kThreads) {
        slots[i] = 0.0f;
    }
    const int padding = shape.dilation * (shape.kernel - 1) / 2;
    const int window = shape.dilation * (shape.kernel - 1);
    for (std::int64_t tile = blockIdx.x; tile < tiling.tiles; tile += gridDim.x) {
        const Place place = corner(tiling, tile);
        const Place first = {place.image,
                             floor_divided(place.row + padding - window, shape.stride),
                             floor_divided(place.column + padding - window, shape.stride)};
        __syncthreads();
        load_outputs<T, kWide>(dt, shape, tiling, first, from, c, width);
        // Where the window's last tap of the tile's first pixel is, on the halo's grid of inputs.
        const int row_off = place.row + padding - window - first.row * shape.stride;
        const int column_off = place.column + padding - window - first.column * shape.stride;
        float du[kOwn][kSize];
#pragma unroll
        for (int j = 0; j < kOwn; ++j) {
            const int m = own + j * step;
            const Place in = pixel_at(tiling, place, m);
            Pack<T> each;
            each.clear();
            if (valid > 0 && m < tiling.pixels() && is_inside(in, shape.n, shape.h, shape.w)) {
                const std::int64_t row = (in.image * shape.h + in.row) * shape.w + in.column;
                each.template load<kWide>(x + row * shape.c + c + channel, valid);
                each.store(kept + m * width + channel);
                apply_norm(each, norms, channel);
            }
#pragma unroll
            for (int i = 0; i < kSize; ++i) {
                each.value[i] = rectified(each.value[i]);
                du[j][i] = 0.0f;
            }
            each.store(kept_u + m * width + channel);
        }
        __syncthreads();
#pragma unroll 1
        for (int tap = 0; tap < taps; ++tap) {
            const int row_tap = row_off + (shape.kernel - 1 - tap / shape.kernel) * shape.dilation;
            const int column_tap =
                column_off + (shape.kernel - 1 - tap % shape.kernel) * shape.dilation;
            float w[kSize];
            float dw[kSize] = {};
            load_floats(w, weights + tap * width + channel);
#pragma unroll
            for (int j = 0; j < kOwn; ++j) {
                const int m = own + j * step;
                const Place in = pixel_at(tiling, {0, 0, 0}, m);
                const int row = (in.row + row_tap) / shape.stride;
                const int column = (in.column + column_tap) / shape.stride;
                if (m < tiling.pixels() && row * shape.stride == in.row + row_tap &&
                    column * shape.stride == in.column + column_tap) {
                    const int line = static_cast<int>(in.image) * tiling.halo_rows + row;
                    Pack<T> g;
                    Pack<T> u;
                    g.load(dt + (line * tiling.halo_columns + column) * width + channel);
                    u.load(kept_u + m * width + channel);
#pragma unroll
                    for (int i = 0; i < kSize; ++i) {
                        du[j][i] += g.value[i] * w[i];
                        dw[i] += g.value[i] * u.value[i];
                    }
                }
            }
            add_to_slot(slot + tap * width, dw, packs, channel);
        }
        float sum[kSize] = {};
        float product[kSize] = {};
#pragma unroll
        for (int j = 0; j < kOwn; ++j) {
            const int m = own + j * step;
            const Place in = pixel_at(tiling, place, m);
            if (valid <= 0 || m >= tiling.pixels() || !is_inside(in, shape.n, shape.h, shape.w)) {
                continue;
            }
            const std::int64_t row = (in.image * shape.h + in.row) * shape.w + in.column;
            T* const to = dx + row * shape.c + c + channel;
            Pack<T> each;
            each.clear();
            if (accumulate) {
                each.template load<kWide>(to, valid);
            }
            Pack<T> source;
            Pack<T> u;
            source.load(kept + m * width + channel);
            u.load(kept_u + m * width + channel);
#pragma unroll
            for (int i = 0; i < kSize; ++i) {
                const float kept_du = u.value[i] <= 0.0f ? 0.0f : du[j][i];
                const float xhat = inverse[channel + i] * (source.value[i] - norms.mean[channel + i]);
                each.value[i] += kept_du;
                sum[i] += kept_du;
                product[i] += kept_du * xhat;
            }
            each.template store<kWide>(to, valid);
        }
        if (sums != nullptr) {
            add_to_slot(slot + taps * width, sum, packs, channel);
            add_to_slot(slot + (taps + 1) * width, product, packs, channel);
        }
    }
    __syncthreads();
    float* const parts = reinterpret_cast<float*>(workspace + plan.depthwise);
#pragma unroll 1
    for (int item = threadIdx.x; item < (taps + 2) * width; item += kThreads) {
        const int row = item / width;
        float sum = 0.0f;
        for (int warp = 0; warp < kWarps; ++warp) {
            sum += slots[warp * (taps + 2) * width + item];
        }
        if (c + item % width < shape.c) {
            parts[(static_cast<std::int64_t>(blockIdx.x) * (taps + 2) + row) * shape.c + c +
                  item % width] = sum;
        }
    }
    finish(parts, reinterpret_cast<int*>(workspace + plan.counters) + blockIdx.y,
           slots + kWarps * (taps + 2) * width, shape, c, width, d_depthwise, sums);
}

// -- host -----------------------------------------------------------------------------------------

// Blocks that share the tiles, where `rows` of blocks run beside each other.
int parts_for(std::int64_t tiles, int rows) {
    return static_cast<int>(std::min<std::int64_t>(tiles, std::max(1, kMostParts / rows)));
}

std::int64_t aligned(std::int64_t bytes) { return (bytes + 127) / 128 * 128; }

template <typename T>
Plan make_plan(const Shape& shape) {
    Plan plan{};
    const int taps = shape.kernel * shape.kernel;
    plan.halo_width = shape.c <= 16 ? 16 : 32;
    const auto matrix_bytes = [&](const Tiling& each) {
        return matrix_regions<T>(each, taps, plan.halo_width).bytes;
    };
    plan.outputs = choose_tiling(
        shape.n, shape.p, shape.q, kTile<T>,
        [&](int size) { return (size - 1) * shape.stride + reach(shape) + 1; }, matrix_bytes);
    plan.matrix_bytes = matrix_bytes(plan.outputs);
    plan.matrix_parts = parts_for(plan.outputs.tiles, (shape.c + kChannels - 1) / kChannels);

    plan.tile_width = shape.c <= 16 || taps > 25 ? 16 : 32;
    const auto depthwise_bytes = [&](const Tiling& each) {
        return depthwise_regions<T>(each, taps, plan.tile_width).bytes;
    };
    plan.inputs = choose_tiling(
        shape.n, shape.h, shape.w, tile_pixels<T>(plan.tile_width),
        [&](int size) {
            return (size - 1 + reach(shape) + shape.stride - 1) / shape.stride + 1;
        },
        depthwise_bytes);
    plan.depthwise_bytes = depthwise_bytes(plan.inputs);
    const int rows = (shape.c + plan.tile_width - 1) / plan.tile_width;
    plan.depthwise_parts = parts_for(plan.inputs.tiles, rows);

    const std::int64_t pixels = shape.n * shape.p * shape.q;
    plan.dt = 0;
    plan.pointwise = aligned(pixels * shape.c * static_cast<std::int64_t>(sizeof(T)));
    plan.depthwise = aligned(plan.pointwise + std::int64_t{4} * plan.matrix_parts * shape.d * shape.c);
    plan.counters =
        aligned(plan.depthwise + std::int64_t{4} * plan.depthwise_parts * (taps + 2) * shape.c);
    plan.bytes = plan.counters + std::int64_t{4} * ((shape.c + kChannels - 1) / kChannels * 4);
    return plan;
}

template <typename T>
void run(const Shape& shape, const Upstream& up, const void* x, const Norm& norm,
         const void* depthwise, const void* pointwise, void* dx, bool accumulate,
         void* d_depthwise, void* d_pointwise, float* sums, void* workspace, void* stream,
         bool wide) {
    const Plan plan = make_plan<T>(shape);
    const auto* const in = static_cast<const T*>(x);
    const auto* const filter = static_cast<const T*>(depthwise);
    auto* const scratch = static_cast<unsigned char*>(workspace);
    auto* const dt = reinterpret_cast<T*>(scratch + plan.dt);
    launch(wide ? separable_backward_matrix_kernel<T, true>
                : separable_backward_matrix_kernel<T, false>,
           dim3(plan.matrix_parts, (shape.c + kChannels - 1) / kChannels), kThreads,
           plan.matrix_bytes, stream, shape, plan, up, in, norm, filter,
           static_cast<const T*>(pointwise), dt, scratch);
    launch(wide ? separable_backward_depthwise_kernel<T, true>
                : separable_backward_depthwise_kernel<T, false>,
           dim3(plan.depthwise_parts, (shape.c + plan.tile_width - 1) / plan.tile_width), kThreads,
           plan.depthwise_bytes, stream, shape, plan, in, norm, filter, static_cast<T*>(dx),
           accumulate, static_cast<T*>(d_depthwise), static_cast<T*>(d_pointwise), sums, dt,
           scratch);
}

}  // namespace

std::size_t separable_backward_workspace(Type type, const Shape& shape) {
    const Plan plan = type == Type::kFloat ? make_plan<float>(shape) : make_plan<__half>(shape);
    return static_cast<std::size_t>(plan.bytes);
}

void separable_backward(Type type, const Shape& shape, const Upstream& up, const void* x,
                        const Norm& norm, const void* depthwise, const void* pointwise, void* dx,
                        bool accumulate, void* d_depthwise, void* d_pointwise, float* sums,
                        void* workspace, void* stream) {
    const bool wide = is_wide(type, shape.c, x, pointwise, dx, workspace) &&
                      is_wide(type, shape.d, up.gradient, up.z);
    const auto call = [&](auto run_as) {
        run_as(shape, up, x, norm, depthwise, pointwise, dx, accumulate, d_depthwise, d_pointwise,
               sums, workspace, stream, wide);
    };
    switch (type) {
        case Type::kFloat: return call(run<float>);
        case Type::kHalf: return call(run<__half>);
        case Type::kBfloat16: return call(run<__nv_bfloat16>);
    }
}

}  // namespace hwnas_cuda
