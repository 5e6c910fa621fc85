// A sliding window over an NHWC image, with padding dilation * (kernel - 1) / 2 on each side.
// Plain data: kernels and bindings include it.
#pragma once

#include <cstdint>

namespace hwnas {

struct Window {
    std::int64_t images;
    int channels;
    int height, width;          // of the input
    int out_height, out_width;  // of the output
    int kernel, stride, dilation;

    int padding() const { return dilation * (kernel - 1) / 2; }
    int reach() const { return dilation * (kernel - 1) + 1; }

    // The input position under tap `tap` at output position `at`; may lie outside.
    int source(int at, int tap) const { return at * stride + tap * dilation - padding(); }

    // Taps first to last - 1 lie inside an axis of length `side` at output position `at`.
    int first_tap(int at) const {
        const int start = source(at, 0);
        return start >= 0 ? 0 : (-start + dilation - 1) / dilation;
    }
    int last_tap(int at, int side) const {
        const int room = side - 1 - source(at, 0);
        return room / dilation + 1 < kernel ? room / dilation + 1 : kernel;
    }

    // Output positions full_begin to full_end - 1 of an axis have all taps inside.
    int full_begin(int out_side) const {
        const int begin = (padding() + stride - 1) / stride;
        return begin < out_side ? begin : out_side;
    }
    int full_end(int side, int out_side) const {
        const int room = side - reach() + padding();
        const int end = room < 0 ? 0 : room / stride + 1;
        const int begin = full_begin(out_side);
        return end < begin ? begin : (end < out_side ? end : out_side);
    }
};

}  // namespace hwnas
