// Dense convolutions with an optional ReLU in front: 1x1 of a concatenation, k x k, and 1x1 with a
// stride, one or two (a factorised reduction) side by side.
#pragma once

#include <cstdint>

#include "cpu/isa.h"
#include "cpu/kernels/window.h"
#include "cpu/norm.h"

namespace hwnas {

// One of the tensors that a 1x1 convolution reads as if they were one.
struct ConvInput {
    const float* x;
    int channels;
    float* dx;  // backward; null: not wanted
    bool accumulate;
};

// z = weight * [relu] concat(inputs).
struct PointwiseArgs {
    const ConvInput* inputs;
    int input_count;
    bool relu;
    std::int64_t pixels;
    int depth;            // channels of all inputs
    int columns;          // channels of z
    const float* weight;  // [columns, depth]
    float* z;
    float* statistics;  // [2, columns]; null: not wanted
    int threads;
};

struct PointwiseBackwardArgs {
    PointwiseArgs forward;  // z and statistics are not used
    Upstream up;
    float* dweight;
};

// k x k, any stride and dilation; window.channels are those of x.
struct DenseArgs {
    Window window;
    const float* x;
    bool relu;
    int columns;
    const float* weight;  // [columns, channels, kernel, kernel]
    float* z;
    float* statistics;
    int threads;
};

struct DenseBackwardArgs {
    DenseArgs forward;
    Upstream up;
    float* dweight;
    float* dx;  // null: not wanted
    bool accumulate;
};

// A 1x1 convolution that reads the pixels (stride * i + offset, stride * j + offset), zeros outside,
// and writes `columns` channels of z from `first` on.
struct SampledPart {
    const float* weight;  // [columns, channels]
    float* dweight;
    int columns;
    int first;
    int offset;
};

struct SampledArgs {
    Window window;  // kernel 1
    const float* x;
    bool relu;
    SampledPart parts[2];
    int part_count;
    int columns;  // of all parts
    float* z;
    float* statistics;
    int threads;
};

struct SampledBackwardArgs {
    SampledArgs forward;
    Upstream up;
    float* dx;
    bool accumulate;
};

HWNAS_KERNEL(pointwise, PointwiseArgs)
HWNAS_KERNEL(pointwise_backward, PointwiseBackwardArgs)
HWNAS_KERNEL(dense, DenseArgs)
HWNAS_KERNEL(dense_backward, DenseBackwardArgs)
HWNAS_KERNEL(sampled, SampledArgs)
HWNAS_KERNEL(sampled_backward, SampledBackwardArgs)

}  // namespace hwnas
