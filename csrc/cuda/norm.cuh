// The norm in front of a stage and the gradient behind it, for a tile of channels.
#pragma once

#include "cuda/pack.cuh"

namespace hwnas_cuda {

// Coefficients of `width` channels in shared memory: y = slope * (z - mean) + beta.
struct NormTile {
    float *mean, *slope, *beta;
};

__device__ __forceinline__ float inverse_deviation(const Norm& norm, int channel) {
    return 1.0f / sqrtf(norm.variance[channel] + norm.epsilon);
}

__device__ __forceinline__ NormTile norm_tile(float* shared, int width) {
    return {shared, shared + width, shared + 2 * width};
}

// No norm: y = z. Channels outside the tensor: y = 0.
__device__ __forceinline__ void fill_norm(const NormTile& tile, int width, const Norm& norm,
                                          int first, int channels) {
#pragma unroll 1
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const int c = first + i;
        const bool is_there = c < channels;
        const bool is_norm = is_there && norm.mean != nullptr;
        tile.mean[i] = is_norm ? norm.mean[c] : 0.0f;
        tile.slope[i] = is_norm ? norm.gamma[c] * inverse_deviation(norm, c) : float(is_there);
        tile.beta[i] = is_norm ? norm.beta[c] : 0.0f;
    }
}

template <typename T>
__device__ __forceinline__ void apply_norm(Pack<T>& z, const NormTile& tile, int channel) {
    float mean[Pack<T>::kSize];
    float slope[Pack<T>::kSize];
    float beta[Pack<T>::kSize];
    load_floats(mean, tile.mean + channel);
    load_floats(slope, tile.slope + channel);
    load_floats(beta, tile.beta + channel);
#pragma unroll
    for (int i = 0; i < Pack<T>::kSize; ++i) {
        z.value[i] = slope[i] * (z.value[i] - mean[i]) + beta[i];
    }
}

// NaN stays, as in PyTorch.
__device__ __forceinline__ float rectified(float x) { return x <= 0.0f ? 0.0f : x; }

// dz = factor * (g - first - zhat * second), zhat = inverse * (z - mean), where g is the gradient,
// zeroed where relu is set and gamma * zhat + beta <= 0.
struct UpstreamTile {
    float *factor, *first, *second, *mean, *inverse, *gamma, *beta;
};
constexpr int kUpstreamRows = 7;

__device__ __forceinline__ UpstreamTile upstream_tile(float* shared, int width) {
    return {shared,
            shared + width,
            shared + 2 * width,
            shared + 3 * width,
            shared + 4 * width,
            shared + 5 * width,
            shared + 6 * width};
}

__device__ __forceinline__ void fill_upstream(const UpstreamTile& tile, int width,
                                              const Upstream& up, int first, int channels) {
    const float gate = up.gate == nullptr ? 1.0f : *up.gate;
#pragma unroll 1
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const int c = first + i;
        const bool is_there = c < channels;
        const bool is_norm = is_there && up.norm.mean != nullptr;
        const bool is_batch = is_norm && up.norm.is_batch;
        const float inverse = is_norm ? inverse_deviation(up.norm, c) : 1.0f;
        const float gamma = is_norm ? up.norm.gamma[c] : 1.0f;
        tile.factor[i] = is_there ? gate * gamma * inverse : 0.0f;
        tile.first[i] = is_batch ? up.sums[c] / up.count : 0.0f;
        tile.second[i] = is_batch ? up.sums[channels + c] / up.count : 0.0f;
        tile.mean[i] = is_norm ? up.norm.mean[c] : 0.0f;
        tile.inverse[i] = inverse;
        tile.gamma[i] = gamma;
        tile.beta[i] = is_norm ? up.norm.beta[c] : 0.0f;
    }
}

// z is read only where the formula needs it.
__device__ __forceinline__ bool needs_z(const Upstream& up) {
    return up.z != nullptr && (up.relu || (up.norm.mean != nullptr && up.norm.is_batch));
}

// dz of a pack at `offset`, plus what is at `add` if that is not null, rounded to T.
template <typename T, bool kWide>
__device__ __forceinline__ Raw<T> gradient_of_z(const Upstream& up, const UpstreamTile& tile,
                                                std::int64_t offset, int channel, int valid,
                                                const T* add) {
    Raw<T> g;
    Raw<T> z;
    Raw<T> before;
    g.template load<kWide>(static_cast<const T*>(up.gradient) + offset, valid);
    const bool has_z = needs_z(up);
    if (has_z) {
        z.template load<kWide>(static_cast<const T*>(up.z) + offset, valid);
    }
    if (add != nullptr) {
        before.template load<kWide>(add, valid);
    }
#pragma unroll
    for (int i = 0; i < Raw<T>::kSize; ++i) {
        const int c = channel + i;
        float value = g.get(i);
        if (has_z) {
            const float zhat = tile.inverse[c] * (z.get(i) - tile.mean[c]);
            const bool is_off = up.relu && tile.gamma[c] * zhat + tile.beta[c] <= 0.0f;
            value = (is_off ? 0.0f : value) - tile.first[c] - zhat * tile.second[c];
        }
        value *= tile.factor[c];
        g.set(i, add != nullptr ? value + before.get(i) : value);
    }
    return g;
}

}  // namespace hwnas_cuda
