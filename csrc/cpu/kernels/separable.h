// Separable convolution: norm, ReLU, depthwise k x k and pointwise 1 x 1 in one pass.
#pragma once

#include <cstdint>

#include "cpu/isa.h"
#include "cpu/norm.h"

namespace hwnas {

// Largest k: what a row's list of taps has room for.
constexpr int kLargestKernel = 15;

// Sizes of x [batch, height, width, channels] and z [batch, rows, columns, outputs], both NHWC.
struct SeparableShape {
    std::int64_t batch;
    int height;
    int width;
    int channels;
    int outputs;
    int kernel;  // odd, up to kLargestKernel
    int stride;
    int dilation;

    int padding() const { return dilation * (kernel - 1) / 2; }
    int rows() const { return (height - 1) / stride + 1; }
    int columns() const { return (width - 1) / stride + 1; }
};

// z = pointwise(depthwise(relu(norm(x)))).
struct SeparableArgs {
    SeparableShape shape;
    const float* x;
    Norm norm;
    const float* depthwise;  // [channels, k, k]
    const float* pointwise;  // [outputs, channels]
    float* z;
    float* statistics;  // [2, outputs]: mean and biased variance of z; null if not wanted
    int threads;
};

// dx receives (`accumulate`: is added) the gradient of norm(x), masked by the ReLU; `sums` receives
// the sums of what was added and of that times xhat.
struct SeparableBackwardArgs {
    SeparableShape shape;
    Upstream up;
    const float* x;
    Norm norm;
    const float* depthwise;
    const float* pointwise;
    float* dx;
    bool accumulate;
    float* d_depthwise;
    float* d_pointwise;
    float* sums;  // [2, channels]; null where there is no norm
    int threads;
};

HWNAS_KERNEL(separable_forward, SeparableArgs)
HWNAS_KERNEL(separable_backward, SeparableBackwardArgs)

}  // namespace hwnas
