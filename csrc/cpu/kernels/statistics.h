// Mean and variance of z for each channel, in the pass that writes z.
//
// Sums of z - shift and of its square, where the shift is near the mean, lose nothing when the mean
// is far greater than the deviation. Blocks are merged in double (Chan et al.), in an order that
// depends on nothing but shapes and slices.
// Include from kernel files only.
#pragma once

#include "cpu/kernels/periodic.h"

namespace hwnas {
namespace HWNAS_ISA {

// Statistics of what one slice has written; the arrays lie in one run of statistics_floats.
struct Statistics {
    int channels = 0;
    int vectors = 0;            // in a period
    float* shift = nullptr;     // a period
    float* sums = nullptr;      // two periods: of z - shift, of its square
    double* mean = nullptr;     // [channels]
    double* squares = nullptr;  // [channels] sum of (z - mean)^2
    double* block = nullptr;    // [2, channels] sums of the block at hand, for each channel
    double count = 0.0;         // pixels merged
    std::int64_t pending = 0;   // pixels in `sums`
};

// Floats that a Statistics itself takes among others.
constexpr int kStatisticsPlace = (sizeof(Statistics) + 63) / 64 * 16;
constexpr int kStatisticsVectors = 4;  // least in a period: sums that do not wait for each other

static inline std::int64_t statistics_floats(int channels) {
    const int vectors = period_vectors(channels, kStatisticsVectors);
    return round_up(8 * channels, 2 * kLanes) + 3 * static_cast<std::int64_t>(vectors) * kLanes;
}

static inline Statistics statistics_in(float* memory, int channels) {
    Statistics s;
    s.channels = channels;
    s.vectors = period_vectors(channels, kStatisticsVectors);
    s.mean = reinterpret_cast<double*>(memory);
    s.squares = s.mean + channels;
    s.block = s.squares + channels;
    s.shift = memory + round_up(8 * channels, 2 * kLanes);
    s.sums = s.shift + s.vectors * kLanes;
    for (int c = 0; c < channels; ++c) {
        s.mean[c] = 0.0;
        s.squares[c] = 0.0;
    }
    return s;
}

// Merges `count` more values of each channel.
static inline void statistics_merge(Statistics& s, double count, const double* mean,
                                    const double* squares) {
    const double total = s.count + count;
    const double share = count / total;
    for (int c = 0; c < s.channels; ++c) {
        const double delta = mean[c] - s.mean[c];
        s.mean[c] += delta * share;
        s.squares[c] += squares[c] + delta * delta * s.count * share;
    }
    s.count = total;
}

// Merges the pixels that were added since the last call.
static inline void statistics_flush(Statistics& s) {
    if (s.pending == 0) {
        return;
    }
    const int channels = s.channels;
    const int floats = s.vectors * kLanes;
    double* const mean = s.block;
    double* const squares = s.block + channels;
    for (int c = 0; c < 2 * channels; ++c) {
        s.block[c] = 0.0;
    }
    for (int i = 0; i < floats; i += channels) {
        for (int c = 0; c < channels; ++c) {
            mean[c] += static_cast<double>(s.sums[i + c]);
            squares[c] += static_cast<double>(s.sums[floats + i + c]);
        }
    }
    const double count = static_cast<double>(s.pending);
    for (int c = 0; c < channels; ++c) {
        const double sum = mean[c];
        const double rest = squares[c] - sum * (sum / count);
        squares[c] = rest < 0.0 ? 0.0 : rest;
        mean[c] = static_cast<double>(s.shift[c]) + sum / count;
    }
    statistics_merge(s, count, mean, squares);
    s.pending = 0;
}

// Sums of kCount vectors of a period, which lie in registers meanwhile.
template <int kCount>
HWNAS_INLINE void statistics_periods(const Statistics& s, int first, const float* z,
                                     std::int64_t periods) {
    const std::int64_t step = static_cast<std::int64_t>(s.vectors) * kLanes;
    float* const sums = s.sums + first * kLanes;
    Vec shift[kCount];
    Vec sum[kCount];
    Vec square[kCount];
    for (int v = 0; v < kCount; ++v) {
        shift[v] = load(s.shift + (first + v) * kLanes);
        sum[v] = load(sums + v * kLanes);
        square[v] = load(sums + step + v * kLanes);
    }
    z += first * kLanes;
    for (std::int64_t p = 0; p < periods; ++p, z += step) {
        for (int v = 0; v < kCount; ++v) {
            const Vec d = load(z + v * kLanes) - shift[v];
            sum[v] += d;
            square[v] += d * d;
        }
    }
    for (int v = 0; v < kCount; ++v) {
        store(sums + v * kLanes, sum[v]);
        store(sums + step + v * kLanes, square[v]);
    }
}

// Adds the less than one period at the end of a run.
static inline void statistics_rest(const Statistics& s, const float* z, int floats) {
    const int step = s.vectors * kLanes;
    for (int i = 0; i < floats; i += kLanes) {
        const int n = min(kLanes, floats - i);
        const Vec value = n == kLanes ? load(z + i) : load_first(z + i, n);
        const Vec shift = n == kLanes ? load(s.shift + i) : load_first(s.shift + i, n);
        const Vec d = value - shift;
        store(s.sums + i, load(s.sums + i) + d);
        store(s.sums + step + i, load(s.sums + step + i) + d * d);
    }
}

// Starts a block. The shift is the mean so far, at first that of some of the pixels at hand.
static inline void statistics_begin(Statistics& s, const float* z, std::int64_t pixels) {
    constexpr std::int64_t kSample = 16;
    const int channels = s.channels;
    const int step = s.vectors * kLanes;
    const double* mean = s.mean;
    if (s.count == 0.0) {
        const std::int64_t taken = pixels < kSample ? pixels : kSample;
        for (int c = 0; c < channels; ++c) {
            s.block[c] = 0.0;
        }
        for (std::int64_t i = 0; i < taken; ++i) {
            const float* const pixel = z + i * pixels / taken * channels;
            for (int c = 0; c < channels; ++c) {
                s.block[c] += static_cast<double>(pixel[c]) / static_cast<double>(taken);
            }
        }
        mean = s.block;
    }
    for (int i = 0; i < step; i += channels) {
        for (int c = 0; c < channels; ++c) {
            s.shift[i + c] = static_cast<float>(mean[c]);
        }
    }
    for (int i = 0; i < 2 * step; ++i) {
        s.sums[i] = 0.0f;
    }
}

// Adds `pixels` of z, [pixels, channels], while they are in cache.
static inline void statistics_add(Statistics& s, const float* z, std::int64_t pixels) {
    constexpr int kMostPeriods = 64;  // in a block: few enough for float sums to be exact enough
    const int step = s.vectors * kLanes;
    if (pixels == 0) {
        return;
    }
    if (s.pending == 0) {
        statistics_begin(s, z, pixels);
    }
    const std::int64_t floats = pixels * s.channels;
    const std::int64_t periods = floats / step;
    int v = 0;
    while (periods > 0 && v < s.vectors) {
        const int left = s.vectors - v;
        if (left == 5 && kRegisters > 16) {
            statistics_periods<5>(s, v, z, periods);
            v += 5;
        } else if (left >= 4 && left != 5) {
            statistics_periods<4>(s, v, z, periods);
            v += 4;
        } else if (left >= 3) {
            statistics_periods<3>(s, v, z, periods);
            v += 3;
        } else {
            statistics_periods<2>(s, v, z, periods);
            v += 2;
        }
    }
    statistics_rest(s, z + periods * step, static_cast<int>(floats - periods * step));
    s.pending += pixels;
    if (s.pending * s.channels >= static_cast<std::int64_t>(kMostPeriods) * step) {
        statistics_flush(s);
    }
}

// Merges the slices in their order and writes mean and biased variance.
static inline void statistics_finish(Statistics* slices, int count, float* out) {
    Statistics& all = slices[0];
    statistics_flush(all);
    for (int i = 1; i < count; ++i) {
        statistics_flush(slices[i]);
        if (slices[i].count > 0.0) {
            statistics_merge(all, slices[i].count, slices[i].mean, slices[i].squares);
        }
    }
    for (int c = 0; c < all.channels; ++c) {
        out[c] = static_cast<float>(all.mean[c]);
        out[all.channels + c] =
            all.count > 0.0 ? static_cast<float>(all.squares[c] / all.count) : 0.0f;
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
