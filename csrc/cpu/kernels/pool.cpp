// Forward: each input row is pooled along its width once, into a ring of rows in L1; an output row
// pools rows of the ring. With stride 1 the inside of a row is flat memory: neighbours along the
// width are `channels` values away.
#include "cpu/kernels/pool.h"

#include "cpu/kernels/gemm.h"
#include "cpu/kernels/mask.h"
#include "cpu/kernels/statistics.h"

namespace hwnas {
namespace HWNAS_ISA {

namespace {

// Rows pooled along the width, of one thread. Rows of whole vectors: what is written behind the
// last value is never read.
struct PoolRing {
    int rows;
    std::int64_t step;   // values from row to row
    float* values;       // [rows, step]
    Tap* taps;           // [rows, step] columns of the winners; maximum only

    float* value(int row) const { return values + row % rows * step; }
    Tap* tap(int row) const { return taps + row % rows * step; }
};

std::int64_t ring_step(const Window& w) {
    return static_cast<std::int64_t>(w.out_width) * w.channels + 2 * kLanes;
}

// A whole vector where that ends before `end`, the end of the tensor, else n values. What lies
// behind the n values is not used.
HWNAS_INLINE Vec load_before(const float* p, int n, const float* end) {
    return p + kLanes <= end ? load(p) : load_tail(p, n);
}

// NaN costs a second comparison: rows without one do without it. Infinity counts as one.
bool may_have_nan(const float* x, std::int64_t n) {
    Vec sums[4] = {zero(), zero(), zero(), zero()};
    std::int64_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        for (int v = 0; v < 4; ++v) {
            sums[v] += load(x + i + v * kLanes) * 0.0f;
        }
    }
    for (; i < n; i += kLanes) {
        sums[0] += load_tail(x + i, n - i < kLanes ? static_cast<int>(n - i) : kLanes) * 0.0f;
    }
    return sum_lanes(sums[0] + sums[1] + sums[2] + sums[3]) != 0.0f;
}

template <bool kNan>
HWNAS_INLINE Mask wins(Vec value, Vec best) {
    return kNan ? wins_maximum(value, best) : is_greater(value, best);
}

// Pools `n` values over taps first to last - 1, which lie `step` values apart.
template <bool kMax, bool kNan, int kTaps>
HWNAS_INLINE void pool_along(const float* x, std::int64_t step, int first, int last,
                             std::int64_t n, const float* end, float* value, Tap* tap) {
    const int taps = kTaps > 0 ? kTaps : last - first;
    x += first * step;
    for (std::int64_t i = 0; i < n; i += kLanes) {
        const int rest = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
        Vec best = load_before(x + i, rest, end);
        Taps winner = all_taps(first);
        for (int t = 1; t < taps; ++t) {
            const Vec each = load_before(x + t * step + i, rest, end);
            if (kMax) {
                const Mask is_won = wins<kNan>(each, best);
                best = select(is_won, each, best);
                winner = select(is_won, all_taps(first + t), winner);
            } else {
                best += each;
            }
        }
        store(value + i, best);
        if (kMax) {
            store_taps(tap + i, winner);
        }
    }
}

// Pools one input row along its width.
template <bool kMax, bool kNan>
void pool_row(const PoolArgs& a, const float* x, const float* end, float* value, Tap* tap) {
    const Window& w = a.window;
    const std::int64_t step = static_cast<std::int64_t>(w.dilation) * w.channels;
    const int full = w.full_begin(w.out_width);
    const int full_end = w.full_end(w.width, w.out_width);
    for (int q = 0; q < w.out_width; ++q) {
        const std::int64_t to = static_cast<std::int64_t>(q) * w.channels;
        const std::int64_t from = static_cast<std::int64_t>(w.source(q, 0)) * w.channels;
        const bool is_full = q >= full && q < full_end;
        if (kMax && is_full && w.stride > 1 && w.kernel == 3) {
            pool_along<kMax, kNan, 3>(x + from, step, 0, 3, w.channels, end, value + to, tap + to);
            continue;
        }
        if (!is_full || w.stride > 1) {
            pool_along<kMax, kNan, 0>(x + from, step, w.first_tap(q), w.last_tap(q, w.width),
                                      w.channels, end, value + to, tap + to);
            continue;
        }
        const std::int64_t n = static_cast<std::int64_t>(full_end - full) * w.channels;
        if (w.kernel == 3) {
            pool_along<kMax, kNan, 3>(x + from, step, 0, 3, n, end, value + to, tap + to);
        } else {
            pool_along<kMax, kNan, 0>(x + from, step, 0, w.kernel, n, end, value + to, tap + to);
        }
        q = full_end - 1;
    }
}

// Rows of the ring that an output row pools: taps first to last - 1.
struct Rows {
    const float* value[kMostPoolTaps];
    const Tap* tap[kMostPoolTaps];
    int first;
    int last;
    const float* next_x;  // fetched while a maximum keeps the core busy
    const float* next_z;
};

template <bool kNan>
void max_down(const Rows& rows, int kernel, std::int64_t n, float* z, std::uint8_t* index) {
    for (std::int64_t i = 0; i < n; i += kLanes) {
        __builtin_prefetch(rows.next_x + i);
        __builtin_prefetch(rows.next_z + i);
        Vec best = load(rows.value[rows.first] + i);
        Taps winner = add_taps(load_taps(rows.tap[rows.first] + i), all_taps(rows.first * kernel));
        for (int t = rows.first + 1; t < rows.last; ++t) {
            const Vec each = load(rows.value[t] + i);
            const Mask is_won = wins<kNan>(each, best);
            best = select(is_won, each, best);
            winner = select_sum(is_won, load_taps(rows.tap[t] + i), all_taps(t * kernel), winner);
        }
        if (n - i >= kLanes) {
            store(z + i, best);
            store_bytes(index + i, winner);
        } else {
            const int rest = static_cast<int>(n - i);
            std::uint8_t bytes[kLanes];
            store_tail(z + i, best, rest);
            store_bytes(bytes, winner);
            __builtin_memcpy(index + i, bytes, static_cast<std::size_t>(rest));
        }
    }
}

void average_down(const Rows& rows, std::int64_t begin, std::int64_t end, float share, float* z) {
    for (std::int64_t i = begin; i < end; i += kLanes) {
        Vec sum = load(rows.value[rows.first] + i);
        for (int t = rows.first + 1; t < rows.last; ++t) {
            sum += load(rows.value[t] + i);
        }
        if (end - i >= kLanes) {
            store(z + i, sum * share);
        } else {
            store_tail(z + i, sum * share, static_cast<int>(end - i));
        }
    }
}

// Divides by the number of taps inside: one for the inside of a row, others at its ends.
void average_row(const Window& w, const Rows& rows, float* z) {
    const int full = w.full_begin(w.out_width);
    const int full_end = w.full_end(w.width, w.out_width);
    const int height = rows.last - rows.first;
    for (int q = 0; q < w.out_width;) {
        const bool is_full = q >= full && q < full_end;
        const int next = is_full ? full_end : q + 1;
        const int count = height * (w.last_tap(q, w.width) - w.first_tap(q));
        average_down(rows, static_cast<std::int64_t>(q) * w.channels,
                     static_cast<std::int64_t>(next) * w.channels,
                     1.0f / static_cast<float>(count), z);
        q = next;
    }
}

template <bool kMax>
void pool_image(const PoolArgs& a, const PoolRing& ring, std::int64_t image,
                Statistics& statistics) {
    constexpr std::int64_t kStatisticsFloats = 2048;  // at once: still in L1
    const Window& w = a.window;
    const std::int64_t in_row = static_cast<std::int64_t>(w.width) * w.channels;
    const std::int64_t out_row = static_cast<std::int64_t>(w.out_width) * w.channels;
    const float* const x = a.x + image * w.height * in_row;
    const float* const end = a.x + w.images * w.height * in_row;
    float* z = a.z + image * w.out_height * out_row;
    std::uint8_t* const index = kMax ? a.index + image * w.out_height * out_row : nullptr;
    std::int64_t fresh = 0;  // pixels of z that the statistics lack
    int next = 0;            // input row that comes into the ring next
    int last_nan = -1;       // the last row in the ring that may have a NaN
    for (int p = 0; p < w.out_height; ++p) {
        Rows rows;
        rows.first = w.first_tap(p);
        rows.last = w.last_tap(p, w.height);
        next = max(next, w.source(p, rows.first));
        for (; next <= w.source(p, rows.last - 1); ++next) {
            const float* const row = x + next * in_row;
            // With a stride a value is compared too seldom for a look at all to pay.
            if (kMax && (w.stride > 1 || may_have_nan(row, in_row))) {
                last_nan = next;
                pool_row<kMax, true>(a, row, end, ring.value(next), ring.tap(next));
            } else {
                pool_row<kMax, false>(a, row, end, ring.value(next), ring.tap(next));
            }
        }
        for (int t = rows.first; t < rows.last; ++t) {
            rows.value[t] = ring.value(w.source(p, t));
            rows.tap[t] = ring.tap(w.source(p, t));
        }
        const float* const soon = x + (next + 1) * in_row;
        rows.next_x = soon + in_row <= end ? soon : x;
        rows.next_z = z + min(p + 1, w.out_height - 1) * out_row;
        if (kMax && last_nan >= w.source(p, rows.first)) {
            max_down<true>(rows, w.kernel, out_row, z + p * out_row, index + p * out_row);
        } else if (kMax) {
            max_down<false>(rows, w.kernel, out_row, z + p * out_row, index + p * out_row);
        } else {
            average_row(w, rows, z + p * out_row);
        }
        fresh += w.out_width;
        if (a.statistics != nullptr &&
            (fresh * w.channels >= kStatisticsFloats || p == w.out_height - 1)) {
            const std::int64_t behind = (p + 1) * out_row;
            statistics_add(statistics, z + behind - fresh * w.channels, fresh);
            fresh = 0;
        }
    }
}

template <bool kMax>
void pool(const PoolArgs& a) {
    const Window& w = a.window;
    const int slices = slices_for(w.images, a.threads);
    const std::int64_t step = ring_step(w);
    const std::int64_t ring_floats = aligned_floats(w.reach() * step * (kMax ? 2 : 1));
    const std::int64_t own = ring_floats + (a.statistics != nullptr ? statistics_floats(w.channels) : 0);
    const std::int64_t stride = aligned_floats(own);
    const Block block(slices * stride + slices * kStatisticsPlace);
    Statistics* const statistics =
        reinterpret_cast<Statistics*>(block.get() + slices * stride);
#pragma omp parallel for schedule(static) num_threads(slices)
    for (int s = 0; s < slices; ++s) {
        float* const memory = block.get() + s * stride;
        const PoolRing ring{w.reach(), step, memory,
                            reinterpret_cast<Tap*>(memory + w.reach() * step)};
        if (a.statistics != nullptr) {
            statistics[s] = statistics_in(memory + ring_floats, w.channels);
        }
        const std::int64_t last = slice_begin(w.images, slices, s + 1);
        for (std::int64_t image = slice_begin(w.images, slices, s); image < last; ++image) {
            pool_image<kMax>(a, ring, image, statistics[s]);
        }
    }
    if (a.statistics != nullptr) {
        statistics_finish(statistics, slices, a.statistics);
    }
}

}  // namespace

void max_pool(const PoolArgs& a) {
    pool<true>(a);
}

void average_pool(const PoolArgs& a) {
    pool<false>(a);
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
