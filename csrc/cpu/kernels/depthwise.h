// Depthwise convolution on rows that lie in the L1 cache.
//
// A row (column, channel) is one flat array: neighbouring columns are `channels` floats apart, so a
// tap is the same array at another offset, and vectors may run across columns. The weights of a
// vector depend on its first channel only, which repeats every `period` floats (the least common
// multiple of channels and lanes): weights are laid out [tap][period].
#pragma once

#include "cpu/simd.h"

namespace hwnas {
namespace HWNAS_ISA {

// out[r][f] = sum over i, j < K of rows[i + r][columns[j] + f] * weights[i * K + j][f % period],
// for f < count, a multiple of the lanes.
template <int K, int R>
static void convolve_rows(const float* const* rows, const long* columns, const float* weights,
                          int period, int count, float* const* out) {
    constexpr bool hoist = K * K + R + 1 < kRegisters;  // all weights stay in registers
    for (int phase = 0; phase < min(period, count); phase += kLanes) {
        Vec kept[hoist ? K * K : 1];
        if constexpr (hoist) {
#pragma GCC unroll 64
            for (int t = 0; t < K * K; ++t) {
                kept[t] = load(weights + t * period + phase);
            }
        }
        for (int f = phase; f < count; f += period) {
            Vec acc[R];
#pragma GCC unroll 64
            for (int r = 0; r < R; ++r) {
                acc[r] = zero();
            }
#pragma GCC unroll 64
            for (int j = 0; j < K; ++j) {
                Vec w[K];
#pragma GCC unroll 64
                for (int i = 0; i < K; ++i) {
                    if constexpr (hoist) {
                        w[i] = kept[i * K + j];
                    } else {
                        w[i] = load(weights + (i * K + j) * period + phase);
                    }
                }
#pragma GCC unroll 64
                for (int i = 0; i < K + R - 1; ++i) {
                    const Vec x = load(rows[i] + columns[j] + f);
#pragma GCC unroll 64
                    for (int r = 0; r < R; ++r) {
                        if (i - r >= 0 && i - r < K) {
                            acc[r] += x * w[i - r];
                        }
                    }
                }
            }
#pragma GCC unroll 64
            for (int r = 0; r < R; ++r) {
                store(out[r] + f, acc[r]);
            }
        }
    }
}

// gradient[i * K + j][f % period] += sum over r and f of rows[i + r][columns[j] + f] * dt[r][f],
// for the J tap columns from `first`.
template <int K, int R, int J>
HWNAS_INLINE void correlate_columns(int first, const float* const* rows, const long* columns,
                                    const float* const* dt, int period, int count,
                                    float* gradient) {
    for (int phase = 0; phase < min(period, count); phase += kLanes) {
        Vec acc[K][J];
#pragma GCC unroll 64
        for (int i = 0; i < K; ++i) {
#pragma GCC unroll 64
            for (int j = 0; j < J; ++j) {
                acc[i][j] = zero();
            }
        }
        for (int f = phase; f < count; f += period) {
            Vec g[R];
#pragma GCC unroll 64
            for (int r = 0; r < R; ++r) {
                g[r] = load(dt[r] + f);
            }
#pragma GCC unroll 64
            for (int i = 0; i < K + R - 1; ++i) {
#pragma GCC unroll 64
                for (int j = 0; j < J; ++j) {
                    const Vec x = load(rows[i] + columns[first + j] + f);
#pragma GCC unroll 64
                    for (int r = 0; r < R; ++r) {
                        if (i - r >= 0 && i - r < K) {
                            acc[i - r][j] += x * g[r];
                        }
                    }
                }
            }
        }
#pragma GCC unroll 64
        for (int i = 0; i < K; ++i) {
#pragma GCC unroll 64
            for (int j = 0; j < J; ++j) {
                float* const at = gradient + (i * K + first + j) * period + phase;
                store(at, load(at) + acc[i][j]);
            }
        }
    }
}

template <int K, int R>
static void correlate_rows(const float* const* rows, const long* columns, const float* const* dt,
                           int period, int count, float* gradient) {
    constexpr int fit = (kRegisters - R - 2) / K;  // tap columns whose sums fit into registers
    constexpr int J = fit < 1 ? 1 : fit < K ? fit : K;
    int first = 0;
    for (; first + J <= K; first += J) {
        correlate_columns<K, R, J>(first, rows, columns, dt, period, count, gradient);
    }
    if constexpr (K % J != 0) {
        correlate_columns<K, R, K % J>(first, rows, columns, dt, period, count, gradient);
    }
}

// -- any taps ---------------------------------------------------------------------------------

// out[f] = sum over t < taps of rows[t][f] * weights[t][f % period].
static inline void convolve_taps(int taps, const float* const* rows, const float* const* weights,
                                 int period, int count, float* out) {
    for (int f = 0, phase = 0; f < count; f += kLanes) {
        Vec acc = zero();
        for (int t = 0; t < taps; ++t) {
            acc += load(rows[t] + f) * load(weights[t] + phase);
        }
        store(out + f, acc);
        phase = phase + kLanes < period ? phase + kLanes : 0;
    }
}

// gradient[f % period] += sum over f of row[f] * dt[f].
static inline void correlate_tap(const float* row, const float* dt, int period, int count,
                                 float* gradient) {
    for (int phase = 0; phase < min(period, count); phase += kLanes) {
        Vec acc = zero();
        for (int f = phase; f < count; f += period) {
            acc += load(row + f) * load(dt + f);
        }
        store(gradient + phase, load(gradient + phase) + acc);
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
