// What the two passes of a separable convolution share: how rows lie in the L1 cache.
//
// relu(norm(x)) is kept in a ring of padded rows: zeros on both sides, so that no tap needs a
// branch. A stride of s deals the padded columns out to s sub-rows (column w to number w % s, place
// w / s): then every tap of neighbouring results lies at neighbouring places, as with stride 1.
#pragma once

#include "cpu/kernels/depthwise.h"
#include "cpu/kernels/gemm.h"
#include "cpu/kernels/periodic.h"
#include "cpu/kernels/separable.h"

namespace hwnas {
namespace HWNAS_ISA {

// Pixels of z that are computed at once: enough for the micro-kernels, few enough for L1.
constexpr int kBandPixels = 64;
// Weights of the depthwise convolution, in bytes, that may stay in L1 beside the rows.
constexpr int kWeightBytes = 16 * 1024;

// Rows that the depthwise convolution takes at once: they share most of what they load.
constexpr int kTogether = 4;

// Sizes of the buffers; all lengths are in floats.
struct Layout {
    SeparableShape shape;
    int padding;
    int rows;              // of z
    int columns;           // of z
    int channels;          // of a pixel in a ring: a multiple of four, the rest zeros
    int period;            // of channels and lanes
    bool is_flat;          // a row of x is laid out like its place in the ring
    int sub_row;           // distance of sub-rows
    int places;            // pixels in a sub-row
    int row;               // a row of the ring
    int count;             // a row of depthwise results, in whole vectors
    int band;              // rows of z computed at once
    int ring;              // rows of the ring
    long taps[kLargestKernel];  // where tap j of result 0 lies in a row of the ring
};

static inline int ring_channels(const SeparableShape& shape) {
    const int narrow = round_up(shape.channels, 4);
    const long floats = (long)shape.kernel * shape.kernel * period_vectors(narrow, 1) * kLanes;
    return floats * 4 <= kWeightBytes ? narrow : round_up(shape.channels, kLanes);
}

static inline Layout layout_of(const SeparableShape& shape) {
    Layout at;
    at.shape = shape;
    at.padding = shape.padding();
    at.rows = shape.rows();
    at.columns = shape.columns();
    at.channels = ring_channels(shape);
    at.period = period_vectors(at.channels, 1) * kLanes;
    at.is_flat = at.channels == shape.channels && shape.stride == 1;
    at.places = (shape.width + 2 * at.padding + shape.stride - 1) / shape.stride;
    // A whole vector more than the pixels: the last vector of a row may reach behind them.
    at.sub_row = round_up(at.places * at.channels, kLanes) + kLanes;
    at.row = at.sub_row * shape.stride;
    at.count = round_up(at.columns * at.channels, kLanes);
    at.band = min(round_up(max(kBandPixels / at.columns, 1), kTogether), at.rows);
    at.ring = at.band * shape.stride + 2 * at.padding + 1;
    for (int j = 0; j < shape.kernel; ++j) {
        const int column = j * shape.dilation;
        at.taps[j] = (long)(column % shape.stride) * at.sub_row +
                     (long)(column / shape.stride) * at.channels;
    }
    return at;
}

// Where column w of x lies in a row of the ring.
HWNAS_INLINE long place_of(const Layout& at, int w) {
    const int column = w + at.padding;
    return (long)(column % at.shape.stride) * at.sub_row +
           (long)(column / at.shape.stride) * at.channels;
}

// -- the norm on the way in -------------------------------------------------------------------

enum InputPart { kInputMean, kInputFactor, kInputShift, kInputParts };

// Mean, factor and shift of each channel, [part][period].
static inline void fill_input_norm(const Norm& norm, const Layout& at, float* table) {
    for (int i = 0; i < at.period; ++i) {
        const int channel = i % at.channels;
        const Affine each = channel < at.shape.channels ? affine_of(norm, channel) : Affine{};
        table[kInputMean * at.period + i] = each.mean;
        table[kInputFactor * at.period + i] = each.scale;
        table[kInputShift * at.period + i] = each.beta;
    }
}

template <bool kNorm>
HWNAS_INLINE Vec read_input(Vec x, const float* table, int period) {
    if (!kNorm) {
        return relu(x);
    }
    const Vec centred = x - load(table + kInputMean * period);
    return relu(load(table + kInputFactor * period) * centred + load(table + kInputShift * period));
}

template <bool kNorm>
static void fill_run(const float* x, int floats, const float* table, int period, float* to) {
    int phase = 0;
    int f = 0;
    for (; f + kLanes <= floats; f += kLanes) {
        store(to + f, read_input<kNorm>(load(x + f), table + phase, period));
        phase = phase + kLanes < period ? phase + kLanes : 0;
    }
    if (f < floats) {
        const Vec last = load_tail(x + f, floats - f);
        store_tail(to + f, read_input<kNorm>(last, table + phase, period), floats - f);
    }
}

// Writes relu(norm(x)) of one row into the ring; what is not a channel of x is left as it is.
template <bool kNorm>
static void fill_row(const Layout& at, const float* x, const float* table, float* to) {
    const SeparableShape& shape = at.shape;
    if (at.is_flat) {
        return fill_run<kNorm>(x, shape.width * shape.channels, table, at.period,
                               to + place_of(at, 0));
    }
    for (int w = 0; w < shape.width; ++w, x += shape.channels) {
        fill_run<kNorm>(x, shape.channels, table, at.period, to + place_of(at, w));
    }
}

// -- the ring ---------------------------------------------------------------------------------

// Rows of relu(norm(x)) of one image, or of the gradient behind the depthwise convolution.
struct Ring {
    float* data;
    const float* zeros;  // what lies outside of the image
    int size;
    int row;
    int filled;  // rows written so far
    int limit;   // rows of the image

    inline __attribute__((always_inline)) float* slot(int number) const {
        return data + (long)(number % size) * row;
    }
    inline __attribute__((always_inline)) const float* read(int number) const {
        return number < 0 || number >= limit ? zeros : slot(number);
    }
};

static inline void fill_until(const Layout& at, const float* image, const Norm& norm,
                              const float* table, int end, Ring& ring) {
    const long step = (long)at.shape.width * at.shape.channels;
    for (end = min(end, ring.limit); ring.filled < end; ++ring.filled) {
        const float* const x = image + ring.filled * step;
        if (norm.is_none()) {
            fill_row<false>(at, x, table, ring.slot(ring.filled));
        } else {
            fill_row<true>(at, x, table, ring.slot(ring.filled));
        }
    }
}

// -- depthwise --------------------------------------------------------------------------------

// weights[tap][f] = depthwise[f % channels][tap], or that of the tap at the other end.
static inline void fill_depthwise(const Layout& at, const float* depthwise, bool flip, float* to) {
    const int taps = at.shape.kernel * at.shape.kernel;
    for (int tap = 0; tap < taps; ++tap) {
        for (int f = 0; f < at.period; ++f) {
            const int channel = f % at.channels;
            const int from = flip ? taps - 1 - tap : tap;
            *to++ = channel < at.shape.channels ? depthwise[(long)channel * taps + from] : 0.0f;
        }
    }
}

// Result rows first to end - 1, `to_row` apart; tap i of row p reads row
// p * stride + i * dilation - padding of the ring.
template <int K>
static void convolve_band_as(const Layout& at, const Ring& ring, int first, int end,
                             const float* weights, float* to, long to_row) {
    const SeparableShape& shape = at.shape;
    const bool shares = shape.stride == 1 && shape.dilation == 1;
    for (int p = first; p < end;) {
        const int together = !shares ? 1 : end - p >= 4 ? 4 : end - p >= 2 ? 2 : 1;
        const float* rows[K + 3];
        for (int i = 0; i < K + together - 1; ++i) {
            rows[i] = ring.read(p * shape.stride + i * shape.dilation - at.padding);
        }
        float* const out[4] = {to, to + to_row, to + 2 * to_row, to + 3 * to_row};
        if (together == 4) {
            convolve_rows<K, 4>(rows, at.taps, weights, at.period, at.count, out);
        } else if (together == 2) {
            convolve_rows<K, 2>(rows, at.taps, weights, at.period, at.count, out);
        } else {
            convolve_rows<K, 1>(rows, at.taps, weights, at.period, at.count, out);
        }
        p += together;
        to += together * to_row;
    }
}

static inline void convolve_any(const Layout& at, const Ring& ring, int first, int end,
                                const float* weights, float* to, long to_row) {
    const SeparableShape& shape = at.shape;
    const float* from[kLargestKernel * kLargestKernel];
    const float* with[kLargestKernel * kLargestKernel];
    for (int p = first; p < end; ++p, to += to_row) {
        int taps = 0;
        for (int i = 0; i < shape.kernel; ++i) {
            const float* row = ring.read(p * shape.stride + i * shape.dilation - at.padding);
            for (int j = 0; j < shape.kernel; ++j, ++taps) {
                from[taps] = row + at.taps[j];
                with[taps] = weights + (long)taps * at.period;
            }
        }
        convolve_taps(taps, from, with, at.period, at.count, to);
    }
}

static inline void convolve_band(const Layout& at, const Ring& ring, int first, int end,
                                 const float* weights, float* to, long to_row) {
    switch (at.shape.kernel) {
        case 3:
            return convolve_band_as<3>(at, ring, first, end, weights, to, to_row);
        case 5:
            return convolve_band_as<5>(at, ring, first, end, weights, to, to_row);
        case 7:
            return convolve_band_as<7>(at, ring, first, end, weights, to, to_row);
        default:
            return convolve_any(at, ring, first, end, weights, to, to_row);
    }
}

// -- memory -----------------------------------------------------------------------------------

// Cuts buffers out of one block; every one starts on a cache line.
struct Carver {
    float* next = nullptr;
    std::int64_t used = 0;

    float* take(std::int64_t floats) {
        float* const at = next == nullptr ? nullptr : next + used;
        used += (floats + kLanes + 15) / 16 * 16;
        return at;
    }
};

static inline void clear(float* p, std::int64_t floats) {
    __builtin_memset(p, 0, static_cast<std::size_t>(floats) * 4);
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
