// Images as flat memory: NHWC without regard to where a pixel starts, so that channel counts that
// are no multiple of a vector cost nothing. What belongs to a channel is laid out again and again
// over a *period*, the shortest run of whole vectors in which whole pixels fit.
// Include from kernel files only.
#pragma once

#include "cpu/arena.h"
#include "cpu/norm.h"
#include "cpu/simd.h"

namespace hwnas {
namespace HWNAS_ISA {

// Memory of a kernel, taken before its threads start: nothing throws inside them.
class Block {
  public:
    explicit Block(std::int64_t floats)
        : data_(static_cast<float*>(arena_take(static_cast<std::size_t>(floats) * 4))) {}
    ~Block() { arena_give(data_); }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    float* get() const { return data_; }

  private:
    float* data_;
};

// Vectors in a period of `channels`: at least `least`, so that sums kept for each vector do not
// wait for each other.
static inline int period_vectors(int channels, int least) {
    int common = kLanes;  // greatest common divisor with the channels: a power of two
    while (channels % common != 0) {
        common /= 2;
    }
    const int shortest = channels / common;
    return (least + shortest - 1) / shortest * shortest;
}

// Where slice `number` of `slices` starts among `total` items.
static inline std::int64_t slice_begin(std::int64_t total, int slices, int number) {
    return total / slices * number + min(static_cast<int>(total % slices), number);
}

// Slices of `items`: no more than there are threads, at least one.
static inline int slices_for(std::int64_t items, int threads) {
    return items < threads ? (items < 1 ? 1 : static_cast<int>(items)) : threads;
}

// The number of floats that keeps what follows on a cache line, and a page, of its own.
static inline std::int64_t aligned_floats(std::int64_t floats) {
    return (floats + 1023) / 1024 * 1024;
}

// a = gamma / sqrt(variance + epsilon) and its parts, as eager PyTorch rounds them.
struct Affine {
    float mean;
    float inverse;  // 1 / sqrt(variance + epsilon)
    float scale;    // gamma * inverse
    float beta;
};

static inline Affine affine_of(const Norm& norm, int channel) {
    if (norm.is_none()) {
        return {0.0f, 1.0f, 1.0f, 0.0f};
    }
    const double variance = static_cast<double>(norm.variance[channel]);
    const double inverse = 1.0 / __builtin_sqrt(variance + static_cast<double>(norm.epsilon));
    return {norm.mean[channel], static_cast<float>(inverse),
            static_cast<float>(static_cast<double>(norm.gamma[channel]) * inverse),
            norm.beta[channel]};
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
