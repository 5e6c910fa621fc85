// Second launch of the separable stage's gradient: dx, d_depthwise, the norm's sums, and the sum of
// the first launch's parts of d_pointwise.
#include "cuda/separable_backward.cuh"

namespace hwnas_cuda {
namespace backward {
namespace {

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
                const float xhat =
                    inverse[channel + i] * (source.value[i] - norms.mean[channel + i]);
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

}  // namespace

template <typename T>
void launch_depthwise(const Call<T>& call) {
    const Plan& plan = call.plan;
    launch(call.wide ? separable_backward_depthwise_kernel<T, true>
                     : separable_backward_depthwise_kernel<T, false>,
           dim3(plan.depthwise_parts, (call.shape.c + plan.tile_width - 1) / plan.tile_width),
           kThreads, plan.depthwise_bytes, call.stream, call.shape, plan, call.x, call.norm,
           call.depthwise, call.dx, call.accumulate, call.d_depthwise, call.d_pointwise, call.sums,
           call.dt, call.workspace);
}

template void launch_depthwise(const Call<float>& call);
template void launch_depthwise(const Call<__half>& call);
template void launch_depthwise(const Call<__nv_bfloat16>& call);

}  // namespace backward
}  // namespace hwnas_cuda
