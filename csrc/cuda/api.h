// What the CUDA kernels offer to a C++ program: launch functions on raw device pointers. No CUDA
// header is needed to include this file. Every function only enqueues work on `stream` (a
// cudaStream_t) of the current device, waits for nothing, and throws std::runtime_error if that
// fails. Images are NHWC. The formulas are those of kernels/backend.py and csrc/cpu/norm.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hwnas_cuda {

enum class Type { kFloat, kHalf, kBfloat16 };

// gamma * (z - mean) / sqrt(variance + epsilon) + beta. No norm: mean is null. All float32.
struct Norm {
    const float* mean;
    const float* variance;
    const float* gamma;
    const float* beta;
    float epsilon;
    int is_batch;
};

// The gradient of z; see csrc/cpu/norm.h. The gate is read on the device (null is 1).
struct Upstream {
    const void* gradient;
    const void* z;
    Norm norm;
    const float* sums;
    const float* gate;
    float count;
    int relu;
};

struct Shape {
    std::int64_t n;
    int c, h, w;  // input
    int d, p, q;  // output
    int kernel, stride, dilation;
};

// Why no kernel can run here, or null.
const char* device_problem();

// Bytes of device memory that the stage needs for a while; uninitialised, aligned to 16.
std::size_t separable_workspace(Type type, const Shape& shape);
std::size_t separable_backward_workspace(Type type, const Shape& shape);
std::size_t combine_backward_workspace(std::int64_t pixels, int channels, int branches);

// depthwise [C, k, k] and pointwise [D, C] are of `type`, in C order. statistics [2, D] may be null:
// then there is one launch, else two.
void separable(Type type, const Shape& shape, const void* x, const Norm& norm,
               const void* depthwise, const void* pointwise, void* z, float* statistics,
               void* workspace, void* stream);

// Two launches. d_depthwise and d_pointwise are of `type`; sums [2, C] may be null without a norm.
void separable_backward(Type type, const Shape& shape, const Upstream& up, const void* x,
                        const Norm& norm, const void* depthwise, const void* pointwise, void* dx,
                        bool accumulate, void* d_depthwise, void* d_pointwise, float* sums,
                        void* workspace, void* stream);

// The most branches that one launch of `combine` or `combine_backward` takes.
constexpr int kMostBranches = 8;

struct Branches {
    int count;
    const void* z[kMostBranches];
    Norm norm[kMostBranches];
};

// gates [count] or null; y is added to if `accumulate`.
void combine(Type type, std::int64_t pixels, int channels, const Branches& branches,
             const float* gates, bool relu, void* y, bool accumulate, void* stream);

// sums [count, 2, channels]; two launches.
void combine_backward(Type type, std::int64_t pixels, int channels, const void* gradient,
                      const Branches& branches, bool relu, float* sums, void* workspace,
                      void* stream);

void accumulate(Type type, std::int64_t pixels, int channels, const Upstream& up, void* dx,
                bool accumulate, void* stream);

// The most cells that one launch of a recurrent node takes.
constexpr int kMostCells = 64;

// One node of `count` cells of `rows` rows each. states [slots, count * rows, hidden]: cell m reads
// slot source[m]. Activations: 0 tanh, 1 ReLU, 2 identity, 3 sigmoid.
struct Cells {
    int count;
    int rows;
    int hidden;
    std::int64_t slot_rows;  // rows of a slot, at least count * rows
    unsigned char source[kMostCells];
    unsigned char activation[kMostCells];
};

// pre [rows, 2 * hidden] -> gate = sigmoid(first half), node = f(second half),
// target = gate * node + (1 - gate) * source.
void rnn_node(Type type, const Cells& cells, const void* pre, const void* states, void* gate,
              void* node, void* target, void* stream);

// Adds to the slots of d_states that the node read, and writes d_pre.
void rnn_node_backward(Type type, const Cells& cells, const void* d_target, const void* gate,
                       const void* node, const void* states, void* d_states, void* d_pre,
                       void* stream);

}  // namespace hwnas_cuda
