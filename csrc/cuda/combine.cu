// The sum of branches with its norms and gates, the sums of its backward pass, and the gradient of a
// branch that does nothing. A thread owns a pack of channels at every so many pixels; coefficients
// of the block's 64 channels are in shared memory.
#include "cuda/api.h"
#include <algorithm>
#include <stdexcept>

#include "cuda/norm.cuh"

namespace hwnas_cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kChannels = 64;
constexpr int kNarrow = 2;  // channels of a thread of `combine_kernel` where packs are not whole
constexpr int kMostBlocks = 1024;
constexpr int kMostParts = 256;
constexpr std::int64_t kMostPixels = std::int64_t{1} << 30;

// `lanes` threads side by side cover a pixel's channels; a power of two, so that warps can add up.
struct Span {
    int pixels;
    int channels;
    int lanes;
};

__device__ __forceinline__ int own_channel(const Span& span, int size) {
    return static_cast<int>(threadIdx.x) % span.lanes * size;
}

__device__ __forceinline__ int first_pixel(const Span& span) {
    return static_cast<int>(blockIdx.x * (kThreads / span.lanes) + threadIdx.x / span.lanes);
}

__device__ __forceinline__ int pixel_step(const Span& span) {
    return static_cast<int>(gridDim.x * (kThreads / span.lanes));
}

__device__ __forceinline__ std::int64_t offset_of(const Span& span, int pixel, int channel) {
    return static_cast<std::int64_t>(pixel) * span.channels + channel;
}

template <typename T, bool kWide>
__global__ void __launch_bounds__(kThreads, 5)
    combine_kernel(Span span, Branches branches, const float* __restrict__ gates, bool relu,
                   T* __restrict__ y, bool accumulate) {
    HWNAS_SHARED(shared);
    constexpr int kSize = kWide ? Pack<T>::kSize : kNarrow;
    float* const coefficients = reinterpret_cast<float*>(shared);
    const int c = blockIdx.y * kChannels;
#pragma unroll 1
    for (int b = 0; b < branches.count; ++b) {
        fill_norm(norm_tile(coefficients + b * 3 * kChannels, kChannels), kChannels,
                  branches.norm[b], c, span.channels);
    }
    __syncthreads();
    const int channel = own_channel(span, kSize);
    const int valid = min(kSize, span.channels - c - channel);
    if (valid <= 0) {
        return;
    }
#pragma unroll 1
    for (int pixel = first_pixel(span); pixel < span.pixels; pixel += pixel_step(span)) {
        const std::int64_t offset = offset_of(span, pixel, c + channel);
        Pack<T> sum;
        sum.clear();
        if (accumulate) {
            sum.template load<kWide>(y + offset, valid);
        }
#pragma unroll 1
        for (int b = 0; b < branches.count; ++b) {
            Raw<T> z;
            z.template load<kWide>(static_cast<const T*>(branches.z[b]) + offset, valid);
            const float gate = gates == nullptr ? 1.0f : gates[b];
            const float* const own = coefficients + b * 3 * kChannels + channel;
#pragma unroll
            for (int i = 0; i < kSize; ++i) {
                const float value =
                    own[kChannels + i] * (z.get(i) - own[i]) + own[2 * kChannels + i];
                sum.value[i] += gate * (relu ? rectified(value) : value);
            }
        }
        sum.template store<kWide>(y + offset, valid);
    }
}

// Adds a pack's values over the lanes of a warp with the same channels, to the warp's slot.
template <int kSize>
__device__ __forceinline__ void add_to_slot(float* slot, float (&value)[kSize], int lanes,
                                            int channel) {
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
        for (int distance = lanes; distance < 32; distance *= 2) {
            value[i] += __shfl_xor_sync(0xffffffffu, value[i], distance);
        }
    }
    if (static_cast<int>(threadIdx.x) % 32 < lanes) {
#pragma unroll
        for (int i = 0; i < kSize; ++i) {
            slot[channel + i] += value[i];
        }
    }
}

// This block's part [B][2][channels] of the sums. Two pixels' gradients stay in registers while all
// branches are looked at, so the gradient is read once.
template <typename T, bool kWide>
__global__ void __launch_bounds__(kThreads, 5)
    combine_backward_kernel(Span span, const T* __restrict__ gradient, Branches branches, bool relu,
                            float* __restrict__ parts) {
    HWNAS_SHARED(shared);
    constexpr int kSize = Pack<T>::kSize;
    constexpr int kOwn = 8 / kSize;
    // For each branch mean, slope, beta, inverse deviation; then a slot [B][2][64] for each warp.
    float* const coefficients = reinterpret_cast<float*>(shared);
    float* const slots = coefficients + branches.count * 4 * kChannels;
    const int c = blockIdx.y * kChannels;
#pragma unroll 1
    for (int b = 0; b < branches.count; ++b) {
        const Norm& norm = branches.norm[b];
        float* const own = coefficients + b * 4 * kChannels;
        fill_norm(norm_tile(own, kChannels), kChannels, norm, c, span.channels);
    #pragma unroll 1
    for (int i = threadIdx.x; i < kChannels; i += kThreads) {
            const bool is_norm = norm.mean != nullptr && c + i < span.channels;
            own[3 * kChannels + i] = is_norm ? inverse_deviation(norm, c + i) : 1.0f;
        }
    }
    const int slot_size = branches.count * 2 * kChannels;
#pragma unroll 1
    for (int i = threadIdx.x; i < kWarps * slot_size; i += kThreads) {
        slots[i] = 0.0f;
    }
    __syncthreads();
    const int channel = own_channel(span, kSize);
    const int valid = span.channels - c - channel;
    float* const slot = slots + threadIdx.x / 32 * slot_size;
    const int step = pixel_step(span);
    // All threads of a block go on as long as one has work: the shuffles want whole warps.
    const int lag = static_cast<int>(threadIdx.x) / span.lanes;
#pragma unroll 1
    for (int base = first_pixel(span) - lag; base < span.pixels; base += kOwn * step) {
        Raw<T> g[kOwn];
#pragma unroll
        for (int j = 0; j < kOwn; ++j) {
            const int pixel = base + lag + j * step;
            if (valid > 0 && pixel < span.pixels) {
                g[j].template load<kWide>(gradient + offset_of(span, pixel, c + channel), valid);
            }
        }
#pragma unroll 1
        for (int b = 0; b < branches.count; ++b) {
            const float* const own = coefficients + b * 4 * kChannels + channel;
            float sum[kSize] = {};
            float product[kSize] = {};
#pragma unroll
            for (int j = 0; j < kOwn; ++j) {
                const int pixel = base + lag + j * step;
                Raw<T> z;
                const bool is_there = branches.z[b] != nullptr && valid > 0 && pixel < span.pixels;
                if (is_there) {
                    z.template load<kWide>(static_cast<const T*>(branches.z[b]) +
                                               offset_of(span, pixel, c + channel),
                                           valid);
                }
#pragma unroll
                for (int i = 0; i < kSize; ++i) {
                    const float off = z.get(i) - own[i];
                    const float value = own[kChannels + i] * off + own[2 * kChannels + i];
                    const bool is_off = relu && is_there && value <= 0.0f;
                    const float kept = is_off ? 0.0f : g[j].get(i);
                    sum[i] += kept;
                    product[i] += is_there ? kept * off * own[3 * kChannels + i] : 0.0f;
                }
            }
            add_to_slot(slot + b * 2 * kChannels, sum, span.lanes, channel);
            add_to_slot(slot + (b * 2 + 1) * kChannels, product, span.lanes, channel);
        }
    }
    __syncthreads();
#pragma unroll 1
    for (int item = threadIdx.x; item < slot_size; item += kThreads) {
        float sum = 0.0f;
        for (int warp = 0; warp < kWarps; ++warp) {
            sum += slots[warp * slot_size + item];
        }
        const int row = item / kChannels;
        const int column = c + item % kChannels;
        if (column < span.channels) {
            parts[(static_cast<std::int64_t>(blockIdx.x) * branches.count * 2 + row) *
                      span.channels + column] = sum;
        }
    }
}

// target[i] = sum over parts of parts[part][i], in double and in a fixed order. A warp an entry.
__global__ void __launch_bounds__(kThreads)
    sum_parts_kernel(const float* __restrict__ parts, int count, int size,
                     float* __restrict__ target) {
    HWNAS_SHARED(shared);
    double* const sums = reinterpret_cast<double*>(shared);
    const int lane = threadIdx.x % 32;
    const int group = threadIdx.x / 32;
    const int i = blockIdx.x * 32 + lane;
    double sum = 0.0;
    for (int part = group; part < count && i < size; part += kWarps) {
        sum += parts[static_cast<std::int64_t>(part) * size + i];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (group != 0 || i >= size) {
        return;
    }
    for (int other = 1; other < kWarps; ++other) {
        sum += sums[other * 32 + lane];
    }
    target[i] = static_cast<float>(sum);
}

template <typename T, bool kWide>
__global__ void __launch_bounds__(kThreads, 5)
    accumulate_kernel(Span span, Upstream up, T* __restrict__ dx, bool accumulate) {
    HWNAS_SHARED(shared);
    constexpr int kSize = Pack<T>::kSize;
    const UpstreamTile tile = upstream_tile(reinterpret_cast<float*>(shared), kChannels);
    const int c = blockIdx.y * kChannels;
    fill_upstream(tile, kChannels, up, c, span.channels);
    __syncthreads();
    const int channel = own_channel(span, kSize);
    const int valid = span.channels - c - channel;
    if (valid <= 0) {
        return;
    }
#pragma unroll 1
    for (int pixel = first_pixel(span); pixel < span.pixels; pixel += pixel_step(span)) {
        const std::int64_t offset = offset_of(span, pixel, c + channel);
        const T* const add = accumulate ? dx + offset : nullptr;
        gradient_of_z<T, kWide>(up, tile, offset, channel, valid, add)
            .template store<kWide>(dx + offset, valid);
    }
}

// -- host -----------------------------------------------------------------------------------------

Span span_of(int size, std::int64_t pixels, int channels) {
    int lanes = 1;
    while (lanes * size < std::min(channels, kChannels)) {
        lanes *= 2;
    }
    if (pixels > kMostPixels) {
        throw std::invalid_argument("an activation has more than 2^30 pixels");
    }
    return {static_cast<int>(pixels), channels, lanes};
}

dim3 grid_of(const Span& span, int each, int most) {
    const std::int64_t rows = static_cast<std::int64_t>(kThreads / span.lanes) * each;
    const std::int64_t blocks = (span.pixels + rows - 1) / rows;
    return dim3(static_cast<unsigned>(std::max<std::int64_t>(1, std::min<std::int64_t>(most, blocks))),
                static_cast<unsigned>((span.channels + kChannels - 1) / kChannels));
}

bool are_wide(Type type, int channels, const Branches& branches, const void* other) {
    bool found = is_wide(type, channels, other);
    for (int b = 0; b < branches.count; ++b) {
        found = found && is_wide(type, channels, branches.z[b]);
    }
    return found;
}

template <typename T>
void run_combine(std::int64_t pixels, int channels, const Branches& branches, const float* gates,
                 bool relu, void* y, bool accumulate, void* stream, bool wide) {
    const Span span = span_of(wide ? Pack<T>::kSize : kNarrow, pixels, channels);
    const int bytes = branches.count * 3 * kChannels * static_cast<int>(sizeof(float));
    launch(wide ? combine_kernel<T, true> : combine_kernel<T, false>, grid_of(span, 4, kMostBlocks),
           kThreads, bytes, stream, span, branches, gates, relu, static_cast<T*>(y), accumulate);
}

template <typename T>
void run_backward(std::int64_t pixels, int channels, const void* gradient,
                  const Branches& branches, bool relu, float* sums, void* workspace, void* stream,
                  bool wide) {
    const Span span = span_of(Pack<T>::kSize, pixels, channels);
    const dim3 grid = grid_of(span, 4, kMostParts);
    const int floats = branches.count * (4 + 2 * kWarps) * kChannels;
    auto* const parts = static_cast<float*>(workspace);
    launch(wide ? combine_backward_kernel<T, true> : combine_backward_kernel<T, false>, grid,
           kThreads, floats * static_cast<int>(sizeof(float)), stream, span,
           static_cast<const T*>(gradient), branches, relu, parts);
    const int size = branches.count * 2 * channels;
    launch(sum_parts_kernel, dim3(static_cast<unsigned>((size + 31) / 32)), kThreads,
           kThreads * static_cast<int>(sizeof(double)), stream, parts, static_cast<int>(grid.x),
           size, sums);
}

template <typename T>
void run_accumulate(std::int64_t pixels, int channels, const Upstream& up, void* dx,
                    bool accumulate, void* stream, bool wide) {
    const Span span = span_of(Pack<T>::kSize, pixels, channels);
    launch(wide ? accumulate_kernel<T, true> : accumulate_kernel<T, false>,
           grid_of(span, 4, kMostBlocks), kThreads,
           kUpstreamRows * kChannels * static_cast<int>(sizeof(float)), stream, span, up,
           static_cast<T*>(dx), accumulate);
}

}  // namespace

std::size_t combine_backward_workspace(std::int64_t pixels, int channels, int branches) {
    const dim3 grid = grid_of(span_of(4, pixels, channels), 4, kMostParts);
    return std::size_t{4} * grid.x * static_cast<std::size_t>(branches) * 2 *
           static_cast<std::size_t>(channels);
}

void combine(Type type, std::int64_t pixels, int channels, const Branches& branches,
             const float* gates, bool relu, void* y, bool accumulate, void* stream) {
    const bool wide = are_wide(type, channels, branches, y);
    const auto call = [&](auto run_as) {
        run_as(pixels, channels, branches, gates, relu, y, accumulate, stream, wide);
    };
    switch (type) {
        case Type::kFloat: return call(run_combine<float>);
        case Type::kHalf: return call(run_combine<__half>);
        case Type::kBfloat16: return call(run_combine<__nv_bfloat16>);
    }
}

void combine_backward(Type type, std::int64_t pixels, int channels, const void* gradient,
                      const Branches& branches, bool relu, float* sums, void* workspace,
                      void* stream) {
    const bool wide = are_wide(type, channels, branches, gradient);
    const auto call = [&](auto run_as) {
        run_as(pixels, channels, gradient, branches, relu, sums, workspace, stream, wide);
    };
    switch (type) {
        case Type::kFloat: return call(run_backward<float>);
        case Type::kHalf: return call(run_backward<__half>);
        case Type::kBfloat16: return call(run_backward<__nv_bfloat16>);
    }
}

void accumulate(Type type, std::int64_t pixels, int channels, const Upstream& up, void* dx,
                bool accumulate, void* stream) {
    const bool wide = is_wide(type, channels, up.gradient, up.z, dx);
    const auto call = [&](auto run_as) {
        run_as(pixels, channels, up, dx, accumulate, stream, wide);
    };
    switch (type) {
        case Type::kFloat: return call(run_accumulate<float>);
        case Type::kHalf: return call(run_accumulate<__half>);
        case Type::kBfloat16: return call(run_accumulate<__nv_bfloat16>);
    }
}

}  // namespace hwnas_cuda
