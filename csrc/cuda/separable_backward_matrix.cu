// First launch of the separable stage's gradient: dt, and parts of d_pointwise, on tensor cores.
#include "cuda/separable_backward.cuh"

namespace hwnas_cuda {
namespace backward {
namespace {

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

}  // namespace

template <typename T>
void launch_matrix(const Call<T>& call) {
    const Plan& plan = call.plan;
    launch(call.wide ? separable_backward_matrix_kernel<T, true>
                     : separable_backward_matrix_kernel<T, false>,
           dim3(plan.matrix_parts, (call.shape.c + kChannels - 1) / kChannels), kThreads,
           plan.matrix_bytes, call.stream, call.shape, plan, call.up, call.x, call.norm,
           call.depthwise, call.pointwise, call.dt, call.workspace);
}

template void launch_matrix(const Call<float>& call);
template void launch_matrix(const Call<__half>& call);
template void launch_matrix(const Call<__nv_bfloat16>& call);

}  // namespace backward
}  // namespace hwnas_cuda
