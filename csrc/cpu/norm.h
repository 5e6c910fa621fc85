// What every convolution-like stage shares: the norm in front of it and the gradient behind it.
//
// Images are NHWC. A stage writes z, the values before its batch norm, and the statistics of z;
// whoever reads z applies the norm on the way in. A C-sized array costs nothing, a pass over an
// activation does.
#pragma once

#include <cstdint>

namespace hwnas {

// y = gamma * (z - mean) / sqrt(variance + epsilon) + beta, for each channel. No norm: mean is null.
struct Norm {
    const float* mean = nullptr;
    const float* variance = nullptr;  // biased
    const float* gamma = nullptr;
    const float* beta = nullptr;
    float epsilon = 0.0f;
    bool is_batch = false;  // mean and variance are those of this very batch: they have gradients

    bool is_none() const { return mean == nullptr; }
};

// The gradient of z, computed on the fly. With y = gate * [relu] norm(z) and dy its gradient:
// g = dy, zeroed where relu is set and norm(z) <= 0; a = gamma / sqrt(variance + epsilon);
//   is_batch:  dz = gate * a * (g - sums[0] / count - zhat * sums[1] / count)
//   otherwise: dz = gate * a * g            no norm: dz = gate * g
// where sums[0] is the sum of g and sums[1] that of g * zhat over the batch, zhat = (z - mean) /
// sqrt(variance + epsilon). The gate is not in the sums.
struct Upstream {
    const float* dy = nullptr;
    const float* z = nullptr;  // may be null where there is no norm
    Norm norm;
    const float* sums = nullptr;  // [2, C]; null unless norm.is_batch
    float gate = 1.0f;
    bool relu = false;
    float count = 1.0f;  // N * H * W of z
};

}  // namespace hwnas
