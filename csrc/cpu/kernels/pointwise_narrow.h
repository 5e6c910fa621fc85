// z of 16 * n + 4 columns wastes most of a vector's lanes on the last four. Here a vector holds four
// columns times four values of depth instead: the left operand is four neighbours, repeated.
// Include from kernel files only.
#pragma once

#include "cpu/kernels/conv.h"
#include "cpu/kernels/gemm.h"

namespace hwnas {
namespace HWNAS_ISA {

#if defined(__AVX512F__)
constexpr int kNarrow = 4;
constexpr int kMostNarrow = 128;  // depth: one chain of additions each

static inline bool is_narrow(const PointwiseArgs& a) {
    return a.columns == kLanes + kNarrow && a.depth % kNarrow == 0 && a.depth <= kMostNarrow;
}

// For four values of depth: four vectors of the first columns, one of the last four.
static inline void pack_narrow(const PointwiseArgs& a, float* to) {
    for (int i = 0; i < a.depth; i += kNarrow) {
        for (int j = 0; j < kNarrow; ++j) {
            for (int d = 0; d < kLanes; ++d) {
                *to++ = a.weight[static_cast<std::int64_t>(d) * a.depth + i + j];
            }
        }
        for (int d = 0; d < kNarrow; ++d) {
            for (int j = 0; j < kNarrow; ++j) {
                *to++ = a.weight[static_cast<std::int64_t>(kLanes + d) * a.depth + i + j];
            }
        }
    }
}

template <int M>
static void narrow_rows(const float* x, int row, int depth, const float* panel, float* z) {
    Vec wide[M];
    Vec last[M];
    for (int m = 0; m < M; ++m) {
        wide[m] = zero();
        last[m] = zero();
    }
    for (int i = 0; i < depth; i += kNarrow, panel += (kNarrow + 1) * kLanes) {
        const Vec four = load(panel + kNarrow * kLanes);
        for (int m = 0; m < M; ++m) {
            const float* const at = x + m * row + i;
            last[m] += (Vec)_mm512_maskz_broadcast_f32x4(0xFFFF, _mm_loadu_ps(at)) * four;
        }
        for (int j = 0; j < kNarrow; ++j) {
            const Vec right = load(panel + j * kLanes);
            for (int m = 0; m < M; ++m) {
                wide[m] += spread(x[m * row + i + j]) * right;
            }
        }
    }
    constexpr int kRow = kLanes + kNarrow;
    for (int m = 0; m < M; ++m) {
        const Vec pairs = last[m] + (Vec)_mm512_maskz_permute_ps(0xFFFF, (__m512)last[m], 0xB1);
        const Vec sums = pairs + (Vec)_mm512_maskz_permute_ps(0xFFFF, (__m512)pairs, 0x4E);
        store(z + m * kRow, wide[m]);
        _mm512_mask_compressstoreu_ps(z + m * kRow + kLanes, 0x1111, (__m512)sums);
    }
}

template <int M>
static void narrow_rest(int rows, const float* x, int row, int depth, const float* panel,
                        float* z) {
    if constexpr (M > 1) {
        if (rows < M) {
            return narrow_rest<M - 1>(rows, x, row, depth, panel, z);
        }
    }
    narrow_rows<M>(x, row, depth, panel, z);
}

static inline void multiply_narrow(const float* x, int row, int pixels, int depth,
                                   const float* panel, float* z) {
    constexpr int kRows = 12;
    for (int p = 0; p < pixels; p += kRows) {
        narrow_rest<kRows>(min(kRows, pixels - p), x + static_cast<std::int64_t>(p) * row, row,
                           depth, panel, z + static_cast<std::int64_t>(p) * (kLanes + kNarrow));
    }
}
#else
static inline bool is_narrow(const PointwiseArgs&) {
    return false;
}
static inline void pack_narrow(const PointwiseArgs&, float*) {}
static inline void multiply_narrow(const float*, int, int, int, const float*, float*) {}
#endif

}  // namespace HWNAS_ISA
}  // namespace hwnas
