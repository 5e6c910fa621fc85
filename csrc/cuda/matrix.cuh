// Tensor-core products of tiles in shared memory: D[16, 16] += A[16, k] * B[k, 16], k a multiple of
// kDepth. Half and bfloat16 run natively. Float is split into two tf32 numbers, x = high + low, and
// three products are summed, low * low (2^-22 of the result) is left out: float's own accuracy.
#pragma once

#include "cuda/pack.cuh"

namespace hwnas_cuda {

namespace wmma = nvcuda::wmma;

// kDepth elements of k at a time; kPad keeps rows in shared memory in different banks.
template <typename T>
struct Matrix {
    static constexpr int kDepth = 16;
    static constexpr int kPad = 8;
    using Sum = wmma::fragment<wmma::accumulator, 16, 16, kDepth, float>;

    template <typename Use, typename Layout>
    struct Operand {
        wmma::fragment<Use, 16, 16, kDepth, T, Layout> all;

        __device__ __forceinline__ void load(const T* address, int pitch) {
            wmma::load_matrix_sync(all, address, pitch);
        }
    };

    template <typename A, typename B>
    static __device__ __forceinline__ void multiply(Sum& sum, const A& a, const B& b) {
        wmma::mma_sync(sum, a.all, b.all, sum);
    }
};

template <>
struct Matrix<float> {
    static constexpr int kDepth = 8;
    static constexpr int kPad = 4;
    using Sum = wmma::fragment<wmma::accumulator, 16, 16, kDepth, float>;

    template <typename Use, typename Layout>
    struct Operand {
        wmma::fragment<Use, 16, 16, kDepth, wmma::precision::tf32, Layout> high, low;

        __device__ __forceinline__ void load(const float* address, int pitch) {
            wmma::load_matrix_sync(high, address, pitch);
#pragma unroll
            for (int i = 0; i < high.num_elements; ++i) {
                const float x = high.x[i];
                high.x[i] = wmma::__float_to_tf32(x);
                low.x[i] = wmma::__float_to_tf32(x - high.x[i]);
            }
        }
    };

    template <typename A, typename B>
    static __device__ __forceinline__ void multiply(Sum& sum, const A& a, const B& b) {
        wmma::mma_sync(sum, a.low, b.high, sum);
        wmma::mma_sync(sum, a.high, b.low, sum);
        wmma::mma_sync(sum, a.high, b.high, sum);
    }
};

template <typename T, typename Layout>
using Left = typename Matrix<T>::template Operand<wmma::matrix_a, Layout>;
template <typename T, typename Layout>
using Right = typename Matrix<T>::template Operand<wmma::matrix_b, Layout>;
using Rows = wmma::row_major;
using Columns = wmma::col_major;

}  // namespace hwnas_cuda
