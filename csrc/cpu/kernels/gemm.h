// Small matrix products on rows of pixels that lie in the L1 cache.
//
// A micro-kernel keeps M x N vectors of results in registers; `a` is read one number at a time and
// spread over the lanes, `b` in vectors. The second operand is packed into panels of up to three
// vectors of columns, padded with zeros, so that no inner loop has a ragged end.
#pragma once

#include "cpu/simd.h"

namespace hwnas {
namespace HWNAS_ISA {

// Lanes 0 to n - 1 from p, zeros behind them; reads nothing behind p + n.
HWNAS_INLINE Vec load_tail(const float* p, int n) {
#if defined(__AVX__) && !defined(__AVX512F__)
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return (Vec)_mm256_maskload_ps(p, (__m256i)((__v8si)_mm256_set1_epi32(n) > (__v8si)lanes));
#else
    return load_first(p, n);
#endif
}

// Writes lanes 0 to n - 1 and nothing behind them.
HWNAS_INLINE void store_tail(float* p, Vec v, int n) {
#if defined(__AVX__) && !defined(__AVX512F__)
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i mask = (__m256i)((__v8si)_mm256_set1_epi32(n) > (__v8si)lanes);
    _mm256_maskstore_ps(p, mask, (__m256)v);
#else
    store_first(p, v, n);
#endif
}

// x in every lane. (simd.h's sum with zero costs an addition: it would turn -0 into 0.)
HWNAS_INLINE Vec spread(float x) {
    return x - Vec{};
}

// -- micro-kernel -----------------------------------------------------------------------------

// acc[m][n] = sum over i < depth of a[m * a_row + i * a_step] * b[i * b_step + vector n].
template <int M, int N>
HWNAS_INLINE void multiply(const float* a, long a_row, long a_step, const float* b, long b_step,
                           int depth, Vec (&acc)[M][N]) {
    for (int m = 0; m < M; ++m) {
        for (int n = 0; n < N; ++n) {
            acc[m][n] = zero();
        }
    }
    for (int i = 0; i < depth; ++i) {
        Vec row[N];
        for (int n = 0; n < N; ++n) {
            row[n] = load(b + n * kLanes);
        }
        for (int m = 0; m < M; ++m) {
            const Vec left = spread(a[m * a_row]);
            for (int n = 0; n < N; ++n) {
                acc[m][n] += left * row[n];
            }
        }
        a += a_step;
        b += b_step;
    }
}

// -- panels -----------------------------------------------------------------------------------

// Vectors in the next panel when so many are left.
HWNAS_INLINE int panel_vectors(int left) {
    return left == 4 ? 2 : min(left, 3);
}

// Rows of a that a micro-kernel of N vectors takes at once: as many as fit into the registers.
constexpr int tile_rows(int vectors) {
    return kRegisters == 32 ? (vectors == 1 ? 12 : 8) : vectors == 1 ? 8 : vectors == 2 ? 6 : 4;
}

// Floats that a packed [depth, columns] operand takes.
HWNAS_INLINE long packed_size(int depth, int columns) {
    return (long)depth * round_up(columns, kLanes);
}

// Packs b[i * row + j * column] (i < depth, j < columns) into the panels of a matrix of `padded`
// columns, one after the other; zeros behind `columns`.
static inline void pack_panels(float* to, const float* b, long row, long column, int depth,
                               int columns, int padded) {
    const int vectors = round_up(padded, kLanes) / kLanes;
    for (int first = 0; first < vectors;) {
        const int width = panel_vectors(vectors - first) * kLanes;
        for (int i = 0; i < depth; ++i) {
            for (int j = 0; j < width; ++j) {
                const int at = first * kLanes + j;
                *to++ = at < columns ? b[i * row + at * column] : 0.0f;
            }
        }
        first += width / kLanes;
    }
}

template <int M, int N, class Sink>
static void run_tile(const float* a, long a_row, const float* panel, int depth, int pixel,
                     int vector, Sink& sink) {
    Vec acc[M][N];
    multiply<M, N>(a, a_row, 1, panel, N * kLanes, depth, acc);
    sink.template take<M, N>(acc, pixel, vector);
}

// Calls the micro-kernel with `rows` rows, 1 to M.
template <int M, int N, class Sink>
static void run_rows(int rows, const float* a, long a_row, const float* panel, int depth, int pixel,
                     int vector, Sink& sink) {
    if constexpr (M > 1) {
        if (rows < M) {
            return run_rows<M - 1, N>(rows, a, a_row, panel, depth, pixel, vector, sink);
        }
    }
    run_tile<M, N>(a, a_row, panel, depth, pixel, vector, sink);
}

template <int N, class Sink>
static void run_panel(const float* a, long a_row, int pixels, const float* panel, int depth,
                      int vector, Sink& sink) {
    constexpr int most = tile_rows(N);
    int tiles = (pixels + most - 1) / most;
    for (int pixel = 0; pixel < pixels; --tiles) {
        const int rows = (pixels - pixel + tiles - 1) / tiles;
        run_rows<most, N>(rows, a + pixel * a_row, a_row, panel, depth, pixel, vector, sink);
        pixel += rows;
    }
}

// Multiplies a[pixels, depth] (rows `a_row` apart) with packed panels of `columns` columns, and
// hands every tile to sink.take<M, N>(acc, first pixel, first vector).
template <class Sink>
static void multiply_panels(const float* a, long a_row, int pixels, const float* panels, int depth,
                            int columns, Sink& sink) {
    const int vectors = round_up(columns, kLanes) / kLanes;
    for (int first = 0; first < vectors;) {
        const int width = panel_vectors(vectors - first);
        if (width == 3) {
            run_panel<3>(a, a_row, pixels, panels, depth, first, sink);
        } else if (width == 2) {
            run_panel<2>(a, a_row, pixels, panels, depth, first, sink);
        } else {
            run_panel<1>(a, a_row, pixels, panels, depth, first, sink);
        }
        panels += (long)depth * width * kLanes;
        first += width;
    }
}

// A sink that writes an image row of `columns` channels a pixel.
struct StoreRows {
    float* to;
    long row;
    int columns;

    template <int M, int N>
    inline __attribute__((always_inline)) void put(Vec (&acc)[M][N], int pixel, int vector) const {
        const int last = columns - (vector + N - 1) * kLanes;
        float* at = to + pixel * row + vector * kLanes;
        for (int m = 0; m < M; ++m, at += row) {
            for (int n = 0; n + 1 < N; ++n) {
                store(at + n * kLanes, acc[m][n]);
            }
            if (last >= kLanes) {
                store(at + (N - 1) * kLanes, acc[m][N - 1]);
            } else {
                store_tail(at + (N - 1) * kLanes, acc[m][N - 1], last);
            }
        }
    }

    template <int M, int N>
    inline __attribute__((always_inline)) void take(Vec (&acc)[M][N], int pixel, int vector) {
        put<M, N>(acc, pixel, vector);
    }
};

// -- outer products ---------------------------------------------------------------------------

template <int M, int N>
HWNAS_INLINE void add_outer_tile(const float* a, long a_step, const float* b, long b_step,
                                 int pixels, float* to, long to_row) {
    Vec acc[M][N];
    multiply<M, N>(a, 1, a_step, b, b_step, pixels, acc);
    for (int m = 0; m < M; ++m) {
        for (int n = 0; n < N; ++n) {
            float* const at = to + m * to_row + n * kLanes;
            store(at, load(at) + acc[m][n]);
        }
    }
}

template <int M, int N>
static void add_outer_rows(int rows, const float* a, long a_step, const float* b, long b_step,
                           int pixels, float* to, long to_row) {
    if constexpr (M > 1) {
        if (rows < M) {
            return add_outer_rows<M - 1, N>(rows, a, a_step, b, b_step, pixels, to, to_row);
        }
    }
    add_outer_tile<M, N>(a, a_step, b, b_step, pixels, to, to_row);
}

template <int N, class Between>
static void add_outer_panel(const float* a, long a_step, int left, const float* b, long b_step,
                            int pixels, float* to, long to_row, Between& between) {
    constexpr int most = tile_rows(N);
    int tiles = (left + most - 1) / most;
    for (int first = 0; first < left; --tiles) {
        const int rows = (left - first + tiles - 1) / tiles;
        add_outer_rows<most, N>(rows, a + first, a_step, b, b_step, pixels, to + first * to_row,
                                to_row);
        between();
        first += rows;
    }
}

// to[i][j] += sum over pixels of a[pixel * a_step + i] * b[pixel * b_step + j], for i < left and j
// below `right`, rounded up to whole vectors: so far `to` must have room and b be readable. Calls
// `between` after each micro-kernel.
template <class Between>
static inline void add_outer(const float* a, long a_step, int left, const float* b, long b_step,
                             int right, int pixels, float* to, long to_row, Between& between) {
    const int vectors = round_up(right, kLanes) / kLanes;
    for (int first = 0; first < vectors;) {
        const int width = panel_vectors(vectors - first);
        const float* const columns = b + first * kLanes;
        float* const at = to + first * kLanes;
        if (width == 3) {
            add_outer_panel<3>(a, a_step, left, columns, b_step, pixels, at, to_row, between);
        } else if (width == 2) {
            add_outer_panel<2>(a, a_step, left, columns, b_step, pixels, at, to_row, between);
        } else {
            add_outer_panel<1>(a, a_step, left, columns, b_step, pixels, at, to_row, between);
        }
        first += width;
    }
}

static inline void add_outer(const float* a, long a_step, int left, const float* b, long b_step,
                             int right, int pixels, float* to, long to_row) {
    const auto nothing = [] {};
    add_outer(a, a_step, left, b, b_step, right, pixels, to, to_row, nothing);
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
