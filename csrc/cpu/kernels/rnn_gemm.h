// GEMMs on panels (see rnn_cell.h): tiles whose accumulators fill the registers.
#pragma once

#include <cstdint>

#include "cpu/kernels/rnn_math.h"
#include "cpu/rnn_plan.h"

namespace hwnas {
namespace HWNAS_ISA {

// A tile of C = A B is kTileRows rows by two panels; one of the weights' gradient is kGradRows rows
// by up to kGradPanels panels.
#if defined(__AVX512F__)
constexpr int kTileRows = 13;
constexpr int kGradRows = 8;
constexpr int kGradPanels = 3;
#elif defined(__AVX__)
constexpr int kTileRows = 6;
constexpr int kGradRows = 4;
constexpr int kGradPanels = 3;
#else
constexpr int kTileRows = 6;
constexpr int kGradRows = 4;
constexpr int kGradPanels = 2;
#endif
constexpr int kPair = 2 * kLanes;

typedef std::int64_t Index;

HWNAS_INLINE Index panels_of(Index features) {
    return (features + kLanes - 1) / kLanes;
}

// Lanes of a panel that are features.
HWNAS_INLINE int lanes_of(Index features, Index panel) {
    const Index left = features - panel * kLanes;
    return left < kLanes ? (left < 0 ? 0 : (int)left) : kLanes;
}

struct Range {
    Index begin;
    Index end;
};

// The part of [0, n) that one of `parts` threads works on.
HWNAS_INLINE Range share(Index n, int part, int parts) {
    return {n * part / parts, n * (part + 1) / parts};
}

// Rows of an operand in panels: panel k of `data` starts at k * stride.
struct Panels {
    const float* data;
    Index stride;
};

// What is needed soon: this much of it is asked for in each of the `k` steps.
struct Prefetch {
    const char* next;
    Index step;
};

// out[row][kPair] = sum over k of a[k][row] * b[k][kPair], `panels` panels of k. A PART of the sum
// may be added to out, and asks for more memory besides.
template <int ROWS, bool PART>
static void multiply_rows(Panels a, const float* b, Index panels, Prefetch ahead, Prefetch also,
                          bool add, float* out) {
    Vec left[ROWS];
    Vec right[ROWS];
    for (int r = 0; r < ROWS; ++r) {
        left[r] = Vec{};
        right[r] = Vec{};
    }
    if (PART && add) {
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
            left[r] = load(out + r * kPair);
            right[r] = load(out + r * kPair + kLanes);
        }
    }
    const float* x = a.data;
    const char* next = ahead.next;
    const char* other = also.next;
    for (Index p = 0; p < panels; ++p, x += a.stride) {
#pragma GCC unroll 4
        for (int k = 0; k < kLanes; ++k) {
            const Vec b0 = load(b);
            const Vec b1 = load(b + kLanes);
            b += kPair;
            __builtin_prefetch(next, 0, 2);
            next += ahead.step;
            if constexpr (PART) {
                __builtin_prefetch(other, 0, 2);
                other += also.step;
            }
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; ++r) {
                const Vec s = broadcast(x[r * kLanes + k]);
                left[r] += s * b0;
                right[r] += s * b1;
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
        store(out + r * kPair, left[r]);
        store(out + r * kPair + kLanes, right[r]);
    }
}

template <bool PART>
HWNAS_INLINE void multiply_any(int rows, Panels a, const float* b, Index panels, Prefetch ahead,
                               Prefetch also, bool add, float* out) {
    switch (rows) {
#define HWNAS_ROWS(n) \
    case n:           \
        return multiply_rows<n, PART>(a, b, panels, ahead, also, add, out);
        HWNAS_ROWS(1)
        HWNAS_ROWS(2)
        HWNAS_ROWS(3)
        HWNAS_ROWS(4)
        HWNAS_ROWS(5)
        HWNAS_ROWS(6)
#if defined(__AVX512F__)
        HWNAS_ROWS(7)
        HWNAS_ROWS(8)
        HWNAS_ROWS(9)
        HWNAS_ROWS(10)
        HWNAS_ROWS(11)
        HWNAS_ROWS(12)
        HWNAS_ROWS(13)
#endif
#undef HWNAS_ROWS
        default:
            return;
    }
}

HWNAS_INLINE void multiply(int rows, Panels a, const float* b, Index panels, Prefetch ahead,
                           float* out) {
    multiply_any<false>(rows, a, b, panels, ahead, ahead, false, out);
}

// Cuts n rows into tiles of nearly one size.
struct Tiles {
    Index count;
    Index rows;
};

HWNAS_INLINE Tiles tiles_of(Index rows) {
    return {(rows + kTileRows - 1) / kTileRows, rows};
}

HWNAS_INLINE Range tile(Tiles tiles, Index index) {
    return {tiles.rows * index / tiles.count, tiles.rows * (index + 1) / tiles.count};
}

// Asks for `panels` panels of weights at `next` while tile `index` is computed.
HWNAS_INLINE Prefetch prefetch(const float* next, Index panels, Tiles tiles, Index index) {
    const Index bytes = panels * kLanes * kPair * (Index)sizeof(float);
    const char* const start = reinterpret_cast<const char*>(next);
    return {start + bytes * index / tiles.count,
            kPair * (Index)sizeof(float) / tiles.count};
}

// a0 b0 a1 b1 ... of the lower halves of a and b, and of the upper ones. The lanes are written out:
// __builtin_shuffle, which takes a vector of them, is GCC's alone.
#if HWNAS_LANES == 16
#define HWNAS_INTERLEAVE(n) \
    n, n + 16, n + 1, n + 17, n + 2, n + 18, n + 3, n + 19, n + 4, n + 20, n + 5, n + 21, n + 6, \
        n + 22, n + 7, n + 23
#elif HWNAS_LANES == 8
#define HWNAS_INTERLEAVE(n) n, n + 8, n + 1, n + 9, n + 2, n + 10, n + 3, n + 11
#else
#define HWNAS_INTERLEAVE(n) n, n + 4, n + 1, n + 5
#endif

HWNAS_INLINE Vec interleave_low(Vec a, Vec b) {
    return __builtin_shufflevector(a, b, HWNAS_INTERLEAVE(0));
}

HWNAS_INLINE Vec interleave_high(Vec a, Vec b) {
    return __builtin_shufflevector(a, b, HWNAS_INTERLEAVE(HWNAS_LANES / 2));
}
#undef HWNAS_INTERLEAVE

// Transposes kLanes vectors: log2(kLanes) perfect shuffles.
HWNAS_INLINE void transpose(Vec* rows) {
    for (int step = 1; step < kLanes; step *= 2) {
        Vec mixed[kLanes];
#pragma GCC unroll 8
        for (int i = 0; i < kLanes / 2; ++i) {
            mixed[2 * i] = interleave_low(rows[i], rows[i + kLanes / 2]);
            mixed[2 * i + 1] = interleave_high(rows[i], rows[i + kLanes / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) {
            rows[i] = mixed[i];
        }
    }
}

// Rows of a row-major [rows, width] matrix into panels p of a plane.
static void pack_panel(const float* matrix, Index rows, Index width, Index p, float* plane) {
    const int lanes = lanes_of(width, p);
    float* to = plane + p * rows * kLanes;
    for (Index r = 0; r < rows; ++r, to += kLanes) {
        store(to, load_first(matrix + r * width + p * kLanes, lanes));
    }
}

// Rows that two planes have in common: `rows` of them from a.data and b.data on.
struct RowSegment {
    const float* a;
    const float* b;
    Index rows;
};

// c[ROWS][PANELS * kLanes] += sum over segments and rows of a[row][0..ROWS) * b[panel][row].
template <int ROWS, int PANELS>
static void accumulate_tile(const RowSegment* segments, Index count, Index a_at, Index b_at,
                            Index b_stride, bool add, float* c, Index width, int rows, int lanes) {
    Vec total[ROWS][PANELS];
    for (int r = 0; r < ROWS; ++r) {
        for (int p = 0; p < PANELS; ++p) {
            total[r][p] = Vec{};
        }
    }
    for (Index s = 0; s < count; ++s) {
        const float* a = segments[s].a + a_at;
        const float* b = segments[s].b + b_at;
        for (Index k = segments[s].rows; k > 0; --k, a += kLanes, b += kLanes) {
            Vec v[PANELS];
#pragma GCC unroll 4
            for (int p = 0; p < PANELS; ++p) {
                v[p] = load(b + p * b_stride);
            }
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; ++r) {
                const Vec w = broadcast(a[r]);
#pragma GCC unroll 4
                for (int p = 0; p < PANELS; ++p) {
                    total[r][p] += w * v[p];
                }
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
        if (r < rows) {
#pragma GCC unroll 4
            for (int p = 0; p < PANELS; ++p) {
                float* const to = c + r * width + p * kLanes;
                const int n = p == PANELS - 1 ? lanes : kLanes;
                if (add) {
                    total[r][p] += load_first(to, n);
                }
                store_first(to, total[r][p], n);
            }
        }
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
