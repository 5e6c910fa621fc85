// Dense convolutions as small matrix products whose left operand is a list of runs in memory: the
// inputs of a concatenation, or the rows under a window. No patch matrix is written.
// Include from kernel files only.
#pragma once

#include "cpu/kernels/gemm.h"
#include "cpu/kernels/periodic.h"

namespace hwnas {
namespace HWNAS_ISA {

// Rows `first` to first + depth - 1 of the right operand meet `depth` neighbouring values of each
// pixel; pixels lie `row` floats apart.
struct Segment {
    const float* a;
    std::int64_t row;
    int depth;
    int first;
};

struct Segments {
    const Segment* items;
    int count;
};

// Adds the products of `depth` values of M pixels.
template <int M, int N>
HWNAS_INLINE void multiply_run(const float* a, std::int64_t row, int depth, const float* b,
                               Vec (&acc)[M][N]) {
    for (int i = 0; i < depth; ++i, ++a, b += N * kLanes) {
        Vec right[N];
        for (int n = 0; n < N; ++n) {
            right[n] = load(b + n * kLanes);
        }
        for (int m = 0; m < M; ++m) {
            const Vec left = spread(a[m * row]);
            for (int n = 0; n < N; ++n) {
                acc[m][n] += left * right[n];
            }
        }
    }
}

// Sums of so many products are added to each other: one long chain of additions would lose what
// eager PyTorch, whose sums are blocked too, keeps.
constexpr int kChain = 128;

// acc = products of all segments.
template <int M, int N>
HWNAS_INLINE void multiply_segments(const Segments& segments, int pixel, const float* panel,
                                    Vec (&acc)[M][N]) {
    Vec before[M][N];
    for (int m = 0; m < M; ++m) {
        for (int n = 0; n < N; ++n) {
            acc[m][n] = zero();
            before[m][n] = zero();
        }
    }
    int chain = 0;
    for (int s = 0; s < segments.count; ++s) {
        const Segment& segment = segments.items[s];
        const float* const a = segment.a + pixel * segment.row;
        const float* const b = panel + static_cast<std::int64_t>(segment.first) * N * kLanes;
        for (int i = 0; i < segment.depth;) {
            if (chain == kChain) {
                for (int m = 0; m < M; ++m) {
                    for (int n = 0; n < N; ++n) {
                        before[m][n] += acc[m][n];
                        acc[m][n] = zero();
                    }
                }
                chain = 0;
            }
            const int depth = min(segment.depth - i, kChain - chain);
            multiply_run<M, N>(a + i, segment.row, depth,
                               b + static_cast<std::int64_t>(i) * N * kLanes, acc);
            i += depth;
            chain += depth;
        }
    }
    for (int m = 0; m < M; ++m) {
        for (int n = 0; n < N; ++n) {
            acc[m][n] += before[m][n];
        }
    }
}

// Calls the micro-kernel with `rows` rows, 1 to M.
template <int M, int N, class Sink>
static void segment_rows(int rows, const Segments& segments, int pixel, const float* panel,
                         int vector, Sink& sink) {
    if constexpr (M > 1) {
        if (rows < M) {
            return segment_rows<M - 1, N>(rows, segments, pixel, panel, vector, sink);
        }
    }
    Vec acc[M][N];
    multiply_segments<M, N>(segments, pixel, panel, acc);
    sink.template take<M, N>(acc, pixel, vector);
}

template <int N, class Sink>
static void segment_panel(const Segments& segments, int pixels, const float* panel, int vector,
                          Sink& sink) {
    constexpr int most = tile_rows(N);
    int tiles = (pixels + most - 1) / most;
    for (int pixel = 0; pixel < pixels; --tiles) {
        const int rows = (pixels - pixel + tiles - 1) / tiles;
        segment_rows<most, N>(rows, segments, pixel, panel, vector, sink);
        pixel += rows;
    }
}

// Multiplies `pixels` rows of the segments with packed panels of [depth, columns] and hands every
// tile to sink.take<M, N>(acc, first pixel, first vector).
template <class Sink>
static void multiply_all(const Segments& segments, int pixels, const float* panels, int depth,
                         int columns, Sink& sink) {
    const int vectors = round_up(columns, kLanes) / kLanes;
    for (int first = 0; first < vectors;) {
        const int width = panel_vectors(vectors - first);
        if (width == 3) {
            segment_panel<3>(segments, pixels, panels, first, sink);
        } else if (width == 2) {
            segment_panel<2>(segments, pixels, panels, first, sink);
        } else {
            segment_panel<1>(segments, pixels, panels, first, sink);
        }
        panels += static_cast<std::int64_t>(depth) * width * kLanes;
        first += width;
    }
}

// A sink for gradients: 0 where the forward pass's ReLU was, written or added.
template <bool kMasked, bool kAdd>
struct GradientRows {
    float* to;
    std::int64_t row;     // floats from pixel to pixel, in `to`
    int columns;
    const float* source;  // what the ReLU gave; kMasked only
    std::int64_t source_row;

    inline __attribute__((always_inline)) Vec value(Vec gradient, const float* at, const float* from, int n) const {
        if (kMasked) {
            const Vec x = n == kLanes ? load(from) : load_tail(from, n);
            gradient = x <= 0.0f ? Vec{} : gradient;
        }
        if (kAdd) {
            gradient += n == kLanes ? load(at) : load_tail(at, n);
        }
        return gradient;
    }

    template <int M, int N>
    inline __attribute__((always_inline)) void take(Vec (&acc)[M][N], int pixel, int vector) const {
        const int last = min(columns - (vector + N - 1) * kLanes, kLanes);
        float* at = to + pixel * row + vector * kLanes;
        const float* from = kMasked ? source + pixel * source_row + vector * kLanes : to;
        for (int m = 0; m < M; ++m) {
            for (int n = 0; n + 1 < N; ++n) {
                const int v = n * kLanes;
                store(at + v, value(acc[m][n], at + v, from + v, kLanes));
            }
            const int v = (N - 1) * kLanes;
            if (last == kLanes) {
                store(at + v, value(acc[m][N - 1], at + v, from + v, kLanes));
            } else {
                store_tail(at + v, value(acc[m][N - 1], at + v, from + v, last), last);
            }
            at += row;
            from += kMasked ? source_row : 0;
        }
    }
};

// Multiplies into `to`, choosing the sink.
static inline void multiply_gradient(const Segments& segments, int pixels, const float* panels,
                                     int depth, int columns, float* to, std::int64_t row,
                                     const float* source, std::int64_t source_row, bool is_added) {
    if (source != nullptr && is_added) {
        GradientRows<true, true> sink{to, row, columns, source, source_row};
        multiply_all(segments, pixels, panels, depth, columns, sink);
    } else if (source != nullptr) {
        GradientRows<true, false> sink{to, row, columns, source, source_row};
        multiply_all(segments, pixels, panels, depth, columns, sink);
    } else if (is_added) {
        GradientRows<false, true> sink{to, row, columns, nullptr, 0};
        multiply_all(segments, pixels, panels, depth, columns, sink);
    } else {
        GradientRows<false, false> sink{to, row, columns, nullptr, 0};
        multiply_all(segments, pixels, panels, depth, columns, sink);
    }
}

// The gradient of a [depth, columns] right operand: float sums of a block of pixels, double totals.
struct OuterSums {
    int depth;
    int columns;
    bool is_turned;  // kept as [columns, depth], where that wastes fewer lanes
    float* sums;
    double* totals;

    int rows() const { return is_turned ? columns : depth; }
    int step() const { return round_up(is_turned ? depth : columns, kLanes); }
    std::int64_t size() const { return static_cast<std::int64_t>(rows()) * step(); }
    double total(int at, int column) const {
        return is_turned ? totals[static_cast<std::int64_t>(column) * step() + at]
                         : totals[static_cast<std::int64_t>(at) * step() + column];
    }
};

static inline OuterSums outer_shape(int depth, int columns, bool may_turn) {
    const bool is_turned = may_turn && static_cast<std::int64_t>(columns) * round_up(depth, kLanes) <
                                           static_cast<std::int64_t>(depth) *
                                               round_up(columns, kLanes);
    return {depth, columns, is_turned, nullptr, nullptr};
}

static inline std::int64_t outer_floats(const OuterSums& shape) {
    return 3 * shape.size();
}

static inline void outer_start(OuterSums& outer, float* memory) {
    outer.totals = reinterpret_cast<double*>(memory);
    outer.sums = memory + 2 * outer.size();
    for (std::int64_t i = 0; i < outer.size(); ++i) {
        outer.totals[i] = 0.0;
        outer.sums[i] = 0.0f;
    }
}

// Adds the products of `pixels` rows of a and of b. Both may be read a vector behind their ends.
// Calls `between` after each micro-kernel.
template <class Between>
static inline void outer_add(const OuterSums& outer, const float* a, std::int64_t a_row,
                             const float* b, std::int64_t b_row, int pixels, Between& between) {
    if (outer.is_turned) {
        add_outer(b, b_row, outer.columns, a, a_row, outer.depth, pixels, outer.sums, outer.step(),
                  between);
    } else {
        add_outer(a, a_row, outer.depth, b, b_row, outer.columns, pixels, outer.sums, outer.step(),
                  between);
    }
}

static inline void outer_add(const OuterSums& outer, const float* a, std::int64_t a_row,
                             const float* b, std::int64_t b_row, int pixels) {
    const auto nothing = [] {};
    outer_add(outer, a, a_row, b, b_row, pixels, nothing);
}

static inline void outer_flush(const OuterSums& outer) {
    for (std::int64_t i = 0; i < outer.size(); ++i) {
        outer.totals[i] += static_cast<double>(outer.sums[i]);
        outer.sums[i] = 0.0f;
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
