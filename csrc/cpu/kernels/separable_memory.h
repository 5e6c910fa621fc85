// What a backward pass of a separable convolution keeps: for all threads, and for each of them.
// Include from kernel files only.
#pragma once

#include "cpu/kernels/separable_rows.h"
#include "cpu/kernels/upstream.h"

namespace hwnas {
namespace HWNAS_ISA {

// What the threads share.
struct Shared {
    Layout at;
    int dt_padding;    // pixels of zeros in front of a row of dt
    int dt_row;        // floats of such a row
    int dt_rows;       // rows of the ring of dt
    int gradient_row;  // floats of a row of the gradient of the pointwise weights
    int up_vectors;    // of the period of the upstream table
    UpstreamMode mode;
    float* input;    // norm of x
    float* up;       // upstream table
    float* weights;  // depthwise
    float* flipped;  // depthwise, back to front
    float* panels;   // pointwise, transposed
};

// What each thread has to itself.
struct Own {
    float* rows;         // ring of relu(norm(x))
    float* dt_rows;      // ring of dt, the gradient behind the depthwise convolution
    float* zeros;
    float* dz;           // a band
    float* middle;       // a band behind the depthwise convolution
    float* du;           // kTogether rows in front of the depthwise convolution
    float* d_depthwise;  // [tap][period]
    float* d_pointwise;  // [outputs][gradient_row]
    float* sums;         // [2][period] of at most an image
    double* totals;      // [2][channels]
};

static inline Shared shared_of(const SeparableBackwardArgs& args) {
    Shared shared{};
    shared.at = layout_of(args.shape);
    const Layout& at = shared.at;
    const int reach = 2 * at.padding / at.shape.stride;
    shared.dt_padding = at.shape.stride == 1 ? at.padding : reach + 1;
    const int pixels = max(at.columns + at.padding, at.places) + shared.dt_padding;
    shared.dt_row = round_up(pixels * at.channels, kLanes) + kLanes;
    shared.dt_rows = at.band + reach + 2;
    shared.gradient_row = round_up(at.channels, kLanes);
    shared.up_vectors = period_vectors(at.shape.outputs, 1);
    shared.mode = upstream_mode(args.up);
    return shared;
}

static inline void carve_shared(Shared& shared, Carver& carver) {
    const Layout& at = shared.at;
    const std::int64_t weights = (std::int64_t)at.shape.kernel * at.shape.kernel * at.period;
    shared.input = carver.take((std::int64_t)kInputParts * at.period);
    shared.up = carver.take(upstream_table_floats(shared.up_vectors));
    shared.weights = carver.take(weights);
    shared.flipped = carver.take(weights);
    shared.panels = carver.take(packed_size(at.shape.outputs, at.channels));
}

static inline Own carve_own(const Shared& shared, Carver& carver) {
    const Layout& at = shared.at;
    const std::int64_t taps = (std::int64_t)at.shape.kernel * at.shape.kernel;
    Own own{};
    own.d_depthwise = carver.take(taps * at.period);
    own.d_pointwise = carver.take((std::int64_t)at.shape.outputs * shared.gradient_row);
    own.sums = carver.take(2 * at.period);
    own.totals = reinterpret_cast<double*>(carver.take(4 * at.shape.channels));
    own.zeros = carver.take(max(at.row, shared.dt_row));
    own.rows = carver.take((std::int64_t)at.ring * at.row);
    own.dt_rows = carver.take((std::int64_t)shared.dt_rows * shared.dt_row);
    own.dz = carver.take((std::int64_t)at.band * at.columns * at.shape.outputs);
    own.middle = carver.take((std::int64_t)at.band * at.count);
    own.du = carver.take(kTogether * (std::int64_t)max(at.row, at.count));
    return own;
}

static inline void clear_own(const Shared& shared, Own& own) {
    const Layout& at = shared.at;
    clear(own.rows, (std::int64_t)at.ring * at.row);
    clear(own.dt_rows, (std::int64_t)shared.dt_rows * shared.dt_row);
    clear(own.zeros, max(at.row, shared.dt_row));
    clear(own.d_depthwise, (std::int64_t)at.shape.kernel * at.shape.kernel * at.period);
    clear(own.d_pointwise, (std::int64_t)at.shape.outputs * shared.gradient_row);
    clear(own.sums, 2 * at.period);
    for (int i = 0; i < 2 * at.shape.channels; ++i) {
        own.totals[i] = 0.0;
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
