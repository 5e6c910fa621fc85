#include "cpu/kernels/combine.h"

#include "cpu/kernels/upstream.h"

namespace hwnas {
namespace HWNAS_ISA {

namespace {

// Vectors for each branch and vector of a period; one more comes first, the sum of all shifts.
enum { kForwardMean, kForwardScale, kForwardBeta, kForwardGate, kForwardParts };

int forward_step(int branches) {
    return (1 + branches * kForwardParts) * kLanes;
}

void fill_forward(const CombineArgs& a, int vectors, float* table) {
    for (int i = 0; i < vectors * kLanes; ++i) {
        float* at = table + i / kLanes * forward_step(a.branches) + i % kLanes;
        float* const shift = at;
        double total = 0.0;
        at += kLanes;
        for (int b = 0; b < a.branches; ++b, at += kForwardParts * kLanes) {
            const Affine norm = affine_of(a.norms[b], i % a.channels);
            at[kForwardMean * kLanes] = norm.mean;
            at[kForwardScale * kLanes] = a.relu ? norm.scale : a.gates[b] * norm.scale;
            at[kForwardBeta * kLanes] = norm.beta;
            at[kForwardGate * kLanes] = a.gates[b];
            total += static_cast<double>(a.gates[b]) * static_cast<double>(norm.beta);
        }
        *shift = a.relu ? 0.0f : static_cast<float>(total);
    }
}

// kBranches: how many, or 0 for any number. rest: values to read, kLanes except at the very end.
template <int kBranches, bool kRelu, bool kWhole>
HWNAS_INLINE Vec sum_at(const float* const* zs, int branches, std::int64_t at, int rest,
                        const float* part) {
    Vec y = load(part);
    part += kLanes;
    const int count = kBranches > 0 ? kBranches : branches;
    for (int b = 0; b < count; ++b, part += kForwardParts * kLanes) {
        const Vec z = kWhole ? load(zs[b] + at) : load_first(zs[b] + at, rest);
        const Vec centred = z - load(part + kForwardMean * kLanes);
        const Vec scale = load(part + kForwardScale * kLanes);
        if (kRelu) {
            const Vec value = scale * centred + load(part + kForwardBeta * kLanes);
            y += load(part + kForwardGate * kLanes) * relu(value);
        } else {
            y += scale * centred;
        }
    }
    return y;
}

template <int kBranches, bool kRelu>
void combine_run(const CombineArgs& a, const float* table, int vectors, std::int64_t begin,
                 std::int64_t end) {
    const float* zs[kBranches > 0 ? kBranches : 1];
    for (int b = 0; b < kBranches; ++b) {
        zs[b] = a.zs[b];
    }
    const float* const* const from = kBranches > 0 ? zs : a.zs;
    const int step = forward_step(a.branches);
    const float* const last = table + vectors * step;
    const float* part = table;
    std::int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
        store(a.y + i, sum_at<kBranches, kRelu, true>(from, a.branches, i, kLanes, part));
        part = part + step == last ? table : part + step;
    }
    if (i < end) {
        const int rest = static_cast<int>(end - i);
        store_first(a.y + i, sum_at<kBranches, kRelu, false>(from, a.branches, i, rest, part),
                    rest);
    }
}

typedef void (*CombineRun)(const CombineArgs&, const float*, int, std::int64_t, std::int64_t);

template <bool kRelu>
CombineRun combine_run_for(int branches) {
    static constexpr CombineRun kRuns[] = {
        combine_run<0, kRelu>, combine_run<1, kRelu>, combine_run<2, kRelu>,
        combine_run<3, kRelu>, combine_run<4, kRelu>, combine_run<5, kRelu>,
        combine_run<6, kRelu>, combine_run<7, kRelu>, combine_run<8, kRelu>};
    return kRuns[branches <= 8 ? branches : 0];
}

// What sums are kept for each vector of a period: [g, then g * (z - mean) of each branch], or, with
// a ReLU, both for each branch.
struct Sums {
    int branches;
    bool relu;

    int rows() const { return relu ? 2 * branches : 1 + branches; }
    int first(int branch) const { return relu ? 2 * branch : 0; }
    int second(int branch) const { return relu ? 2 * branch + 1 : 1 + branch; }
};

enum { kBackwardMean, kBackwardScale, kBackwardBeta, kBackwardParts };

void fill_backward(const CombineBackwardArgs& a, int vectors, float* table) {
    for (int i = 0; i < vectors * kLanes; ++i) {
        float* at = table + i / kLanes * a.branches * kBackwardParts * kLanes + i % kLanes;
        for (int b = 0; b < a.branches; ++b, at += kBackwardParts * kLanes) {
            const Affine norm = affine_of(a.norms[b], i % a.channels);
            const bool is_masked = a.zs[b] != nullptr;
            at[kBackwardMean * kLanes] = norm.mean;
            at[kBackwardScale * kLanes] = is_masked ? norm.scale : 0.0f;
            at[kBackwardBeta * kLanes] = is_masked ? norm.beta : 1.0f;
        }
    }
}

template <int kBranches, bool kRelu, bool kWhole>
HWNAS_INLINE void add_at(const CombineBackwardArgs& a, const float* const* zs, std::int64_t at,
                         int rest, const float* part, float* sums) {
    const Vec dy = kWhole ? load(a.dy + at) : load_first(a.dy + at, rest);
    if (!kRelu) {
        store(sums, load(sums) + dy);
        sums += kLanes;
    }
    const int count = kBranches > 0 ? kBranches : a.branches;
    for (int b = 0; b < count; ++b, part += kBackwardParts * kLanes) {
        const Vec z = kWhole ? load(zs[b] + at) : load_first(zs[b] + at, rest);
        const Vec centred = z - load(part + kBackwardMean * kLanes);
        Vec g = dy;
        if (kRelu) {
            const Vec y = load(part + kBackwardScale * kLanes) * centred +
                          load(part + kBackwardBeta * kLanes);
            g = y <= 0.0f ? Vec{} : dy;
            store(sums, load(sums) + g);
            sums += kLanes;
        }
        store(sums, load(sums) + g * centred);
        sums += kLanes;
    }
}

// Adds up values begin to end. `sums` holds the sums of one block of periods, `totals` those of all.
template <int kBranches, bool kRelu>
void sums_run(const CombineBackwardArgs& a, const float* table, int vectors, std::int64_t begin,
              std::int64_t end, float* sums, double* totals) {
    constexpr int kPeriods = 32;  // in a block: few enough for float sums to be exact enough
    const int kept = Sums{a.branches, kRelu}.rows() * kLanes;
    const int step = a.branches * kBackwardParts * kLanes;
    const float* zs[kBranches > 0 ? kBranches : 1];
    for (int b = 0; b < kBranches; ++b) {
        zs[b] = a.zs[b];
    }
    const float* const* const from = kBranches > 0 ? zs : a.zs;
    std::int64_t i = begin;
    while (i < end) {
        for (int j = 0; j < vectors * kept; ++j) {
            sums[j] = 0.0f;
        }
        for (int p = 0; p < kPeriods && i < end; ++p) {
            for (int v = 0; v < vectors && i < end; ++v, i += kLanes) {
                if (i + kLanes <= end) {
                    add_at<kBranches, kRelu, true>(a, from, i, kLanes, table + v * step,
                                                   sums + v * kept);
                } else {
                    add_at<kBranches, kRelu, false>(a, from, i, static_cast<int>(end - i),
                                                    table + v * step, sums + v * kept);
                }
            }
        }
        for (int j = 0; j < vectors * kept; ++j) {
            totals[j] += static_cast<double>(sums[j]);
        }
    }
}

typedef void (*SumsRun)(const CombineBackwardArgs&, const float*, int, std::int64_t, std::int64_t,
                        float*, double*);

template <bool kRelu>
SumsRun sums_run_for(int branches) {
    static constexpr SumsRun kRuns[] = {
        sums_run<0, kRelu>, sums_run<1, kRelu>, sums_run<2, kRelu>,
        sums_run<3, kRelu>, sums_run<4, kRelu>, sums_run<5, kRelu>,
        sums_run<6, kRelu>, sums_run<7, kRelu>, sums_run<8, kRelu>};
    return kRuns[branches <= 8 ? branches : 0];
}

// Adds the totals of all slices and of all places in a period that belong to a channel.
void finish_sums(const CombineBackwardArgs& a, int vectors, int slices, const double* totals) {
    const Sums kept{a.branches, a.relu};
    const int step = kept.rows() * kLanes;
    for (int b = 0; b < a.branches; ++b) {
        for (int which = 0; which < 2; ++which) {
            const int row = which == 0 ? kept.first(b) : kept.second(b);
            for (int c = 0; c < a.channels; ++c) {
                double sum = 0.0;
                for (int s = 0; s < slices; ++s) {
                    const double* const own = totals + static_cast<std::int64_t>(s) * vectors * step;
                    for (int i = c; i < vectors * kLanes; i += a.channels) {
                        sum += own[i / kLanes * step + row * kLanes + i % kLanes];
                    }
                }
                const Affine norm = affine_of(a.norms[b], c);
                const double factor = which == 0 ? 1.0 : static_cast<double>(norm.inverse);
                a.sums[(b * 2 + which) * a.channels + c] = static_cast<float>(sum * factor);
            }
        }
    }
}

// Where a slice of an image of `floats` values begins: always at a whole period.
std::int64_t begin_of(std::int64_t floats, std::int64_t period, int slices, int number) {
    return number == slices ? floats : slice_begin(floats / period, slices, number) * period;
}

constexpr int kLeastVectors = 8;

}  // namespace

void combine(const CombineArgs& a) {
    const int vectors = period_vectors(a.channels, 1);
    const std::int64_t period = static_cast<std::int64_t>(vectors) * kLanes;
    const std::int64_t floats = a.pixels * a.channels;
    const Block table(static_cast<std::int64_t>(vectors) * forward_step(a.branches));
    fill_forward(a, vectors, table.get());
    const CombineRun run =
        a.relu ? combine_run_for<true>(a.branches) : combine_run_for<false>(a.branches);
    const int slices = slices_for(floats / period, a.threads);
#pragma omp parallel for schedule(static) num_threads(slices)
    for (int s = 0; s < slices; ++s) {
        run(a, table.get(), vectors, begin_of(floats, period, slices, s),
            begin_of(floats, period, slices, s + 1));
    }
}

void combine_backward(const CombineBackwardArgs& a) {
    const int vectors = period_vectors(a.channels, kLeastVectors);
    const std::int64_t period = static_cast<std::int64_t>(vectors) * kLanes;
    const std::int64_t floats = a.pixels * a.channels;
    const int slices = slices_for(floats / period, a.threads);
    const std::int64_t table_floats = period * a.branches * kBackwardParts;
    const std::int64_t kept = period * Sums{a.branches, a.relu}.rows();
    const Block block(table_floats + slices * 3 * kept);
    float* const table = block.get();
    double* const totals = reinterpret_cast<double*>(table + table_floats);
    float* const sums = table + table_floats + slices * 2 * kept;
    fill_backward(a, vectors, table);
    const Block pointers(2 * static_cast<std::int64_t>(a.branches));
    CombineBackwardArgs own = a;
    const float** const zs = reinterpret_cast<const float**>(pointers.get());
    for (int b = 0; b < a.branches; ++b) {
        zs[b] = a.zs[b] != nullptr ? a.zs[b] : a.dy;  // something to read: its sum is not wanted
    }
    own.zs = zs;
    const SumsRun run =
        a.relu ? sums_run_for<true>(a.branches) : sums_run_for<false>(a.branches);
#pragma omp parallel for schedule(static) num_threads(slices)
    for (int s = 0; s < slices; ++s) {
        for (std::int64_t j = 0; j < kept; ++j) {
            totals[s * kept + j] = 0.0;
        }
        run(own, table, vectors, begin_of(floats, period, slices, s),
            begin_of(floats, period, slices, s + 1), sums + s * kept, totals + s * kept);
    }
    finish_sums(a, vectors, slices, totals);
}

namespace {

template <UpstreamMode kMode, bool kAdd>
void accumulate_run(const AccumulateArgs& a, const float* table, int vectors, std::int64_t begin,
                    std::int64_t end) {
    constexpr std::int64_t kStep = kUpstreamParts * kLanes;
    const float* const last = table + vectors * kStep;
    const float* part = table;
    const float* const z = kMode == UpstreamMode::scaled ? a.up.dy : a.up.z;
    std::int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
        const Vec dz = upstream_gradient<kMode>(load(a.up.dy + i), load(z + i), part);
        store(a.dx + i, kAdd ? load(a.dx + i) + dz : dz);
        part = part + kStep == last ? table : part + kStep;
    }
    if (i < end) {
        const int rest = static_cast<int>(end - i);
        const Vec dz = upstream_gradient<kMode>(load_first(a.up.dy + i, rest),
                                                load_first(z + i, rest), part);
        store_first(a.dx + i, kAdd ? load_first(a.dx + i, rest) + dz : dz, rest);
    }
}

typedef void (*AccumulateRun)(const AccumulateArgs&, const float*, int, std::int64_t,
                              std::int64_t);

template <UpstreamMode kMode>
AccumulateRun accumulate_run_for(bool is_added) {
    return is_added ? accumulate_run<kMode, true> : accumulate_run<kMode, false>;
}

}  // namespace

void accumulate(const AccumulateArgs& a) {
    const int vectors = period_vectors(a.channels, 1);
    const std::int64_t period = static_cast<std::int64_t>(vectors) * kLanes;
    const std::int64_t floats = a.pixels * a.channels;
    const Block table(upstream_table_floats(vectors));
    fill_upstream(a.up, a.channels, vectors, table.get());
    const UpstreamMode mode = upstream_mode(a.up);
    const AccumulateRun run = mode == UpstreamMode::scaled
                                  ? accumulate_run_for<UpstreamMode::scaled>(a.accumulate)
                              : mode == UpstreamMode::batch
                                  ? accumulate_run_for<UpstreamMode::batch>(a.accumulate)
                                  : accumulate_run_for<UpstreamMode::masked>(a.accumulate);
    const int slices = slices_for(floats / period, a.threads);
#pragma omp parallel for schedule(static) num_threads(slices)
    for (int s = 0; s < slices; ++s) {
        run(a, table.get(), vectors, begin_of(floats, period, slices, s),
            begin_of(floats, period, slices, s + 1));
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
