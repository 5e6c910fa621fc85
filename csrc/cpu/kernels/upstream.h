// The gradient of z, computed from that of y while it is read (the formulas: cpu/norm.h).
// Include from kernel files only.
#pragma once

#include "cpu/kernels/periodic.h"

namespace hwnas {
namespace HWNAS_ISA {

// dz = scale * (g - offset - slope * (z - mean)), where g = dy, or 0 where a ReLU follows and
// factor * (z - mean) + beta <= 0. One vector of each, in this order, for each vector of a period.
enum UpstreamPart { kScale, kOffset, kSlope, kMean, kFactor, kBeta, kUpstreamParts };

enum class UpstreamMode {
    scaled,  // dz = scale * dy: z is not read
    batch,   // gradients through the batch's mean and variance
    masked,  // batch, with a ReLU behind the norm
};

static inline UpstreamMode upstream_mode(const Upstream& up) {
    if (up.relu && up.z != nullptr) {
        return UpstreamMode::masked;
    }
    return up.norm.is_batch ? UpstreamMode::batch : UpstreamMode::scaled;
}

static inline std::int64_t upstream_table_floats(int vectors) {
    return static_cast<std::int64_t>(vectors) * kUpstreamParts * kLanes;
}

// Fills a table for a period of `vectors`.
static inline void fill_upstream(const Upstream& up, int channels, int vectors, float* table) {
    for (int i = 0; i < vectors * kLanes; ++i) {
        const int channel = i % channels;
        const Affine norm = affine_of(up.norm, channel);
        const double scale = static_cast<double>(up.gate) * static_cast<double>(norm.scale);
        double offset = 0.0;
        double slope = 0.0;
        if (up.norm.is_batch) {
            const double count = static_cast<double>(up.count);
            offset = static_cast<double>(up.sums[channel]) / count;
            slope = static_cast<double>(up.sums[channels + channel]) / count *
                    static_cast<double>(norm.inverse);
        }
        float* const at = table + i / kLanes * kUpstreamParts * kLanes + i % kLanes;
        at[kScale * kLanes] = static_cast<float>(scale);
        at[kOffset * kLanes] = static_cast<float>(offset);
        at[kSlope * kLanes] = static_cast<float>(slope);
        at[kMean * kLanes] = norm.mean;
        at[kFactor * kLanes] = norm.scale;
        at[kBeta * kLanes] = norm.beta;
    }
}

// dz where dy and z are given; `table` points at the parts of this vector.
template <UpstreamMode kMode>
HWNAS_INLINE Vec upstream_gradient(Vec dy, Vec z, const float* table) {
    const Vec scale = load(table + kScale * kLanes);
    if (kMode == UpstreamMode::scaled) {
        return scale * dy;
    }
    const Vec centred = z - load(table + kMean * kLanes);
    if (kMode == UpstreamMode::masked) {
        const Vec y = load(table + kFactor * kLanes) * centred + load(table + kBeta * kLanes);
        dy = y <= 0.0f ? Vec{} : dy;
    }
    const Vec mean_part = load(table + kOffset * kLanes);
    return scale * (dy - mean_part - load(table + kSlope * kLanes) * centred);
}

template <UpstreamMode kMode>
static inline void upstream_run_as(const float* dy, const float* z, std::int64_t floats,
                                   const float* table, int vectors, float* out) {
    constexpr std::int64_t kStep = kUpstreamParts * kLanes;
    const float* part = table;
    const float* const end = table + vectors * kStep;
    std::int64_t i = 0;
    for (; i + kLanes <= floats; i += kLanes) {
        const Vec at = kMode == UpstreamMode::scaled ? Vec{} : load(z + i);
        store(out + i, upstream_gradient<kMode>(load(dy + i), at, part));
        part = part + kStep == end ? table : part + kStep;
    }
    if (i < floats) {
        const int rest = static_cast<int>(floats - i);
        const Vec at = kMode == UpstreamMode::scaled ? Vec{} : load_first(z + i, rest);
        store_first(out + i, upstream_gradient<kMode>(load_first(dy + i, rest), at, part), rest);
    }
}

// Writes dz of `floats` values, starting with the first channel of the pixel at offset `at`.
static inline void upstream_run(const Upstream& up, UpstreamMode mode, std::int64_t at,
                                std::int64_t floats, const float* table, int vectors, float* out) {
    const float* const dy = up.dy + at;
    if (mode == UpstreamMode::scaled) {
        upstream_run_as<UpstreamMode::scaled>(dy, nullptr, floats, table, vectors, out);
    } else if (mode == UpstreamMode::batch) {
        upstream_run_as<UpstreamMode::batch>(dy, up.z + at, floats, table, vectors, out);
    } else {
        upstream_run_as<UpstreamMode::masked>(dy, up.z + at, floats, table, vectors, out);
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
