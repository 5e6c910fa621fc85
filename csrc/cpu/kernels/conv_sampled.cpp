// 1x1 convolutions that read every stride-th pixel of every stride-th row: one, or the two of a
// factorised reduction, whose results lie side by side. Sampled pixels are brought together in L1.
#include "cpu/kernels/conv.h"
#include "cpu/kernels/segments.h"
#include "cpu/kernels/statistics.h"
#include "cpu/kernels/upstream.h"

namespace hwnas {
namespace HWNAS_ISA {

namespace {

constexpr int kTilePixels = 64;

// Output rows first to first + count - 1 of an image.
struct Band {
    std::int64_t image;
    int first;
    int count;
};

// Bands of all images, in order.
struct Bands {
    int rows;  // in a band
    int per_image;
    std::int64_t count;

    explicit Bands(const Window& w)
        : rows(max(1, min(kTilePixels / w.out_width, w.out_height))),
          per_image((w.out_height + rows - 1) / rows),
          count(w.images * per_image) {}
    Band at(const Window& w, std::int64_t number) const {
        const int first = static_cast<int>(number % per_image) * rows;
        return {number / per_image, first, min(rows, w.out_height - first)};
    }
    std::int64_t floats(const Window& w, int channels) const {
        return aligned_floats(static_cast<std::int64_t>(rows) * w.out_width * channels +
                              4 * kLanes);
    }
};

// Offset in x of the pixel that output pixel (p, q) of a band reads, or -1 outside.
HWNAS_INLINE std::int64_t source_of(const Window& w, const SampledPart& part, const Band& band,
                                    int p, int q) {
    const int row = (band.first + p) * w.stride + part.offset;
    const int column = q * w.stride + part.offset;
    if (row >= w.height || column >= w.width) {
        return -1;
    }
    return ((band.image * w.height + row) * w.width + column) * w.channels;
}

// [pixels, channels] = [relu] of the sampled pixels. Vectors are written whole: what is too much is
// written over by the next pixel.
void take_samples(const SampledArgs& a, const SampledPart& part, const Band& band, float* tile) {
    const Window& w = a.window;
    for (int p = 0; p < band.count; ++p) {
        for (int q = 0; q < w.out_width; ++q, tile += w.channels) {
            const std::int64_t from = source_of(w, part, band, p, q);
            for (int c = 0; c < w.channels; c += kLanes) {
                const int rest = w.channels - c;
                Vec each = zero();
                if (from >= 0) {
                    each = rest >= kLanes ? load(a.x + from + c) : load_tail(a.x + from + c, rest);
                }
                store(tile + c, a.relu ? relu(each) : each);
            }
        }
    }
}

// Adds a tile of gradients to the pixels that it was sampled from.
void give_samples(const SampledArgs& a, const SampledPart& part, const Band& band,
                  const float* tile, float* dx) {
    const Window& w = a.window;
    for (int p = 0; p < band.count; ++p) {
        for (int q = 0; q < w.out_width; ++q, tile += w.channels) {
            const std::int64_t to = source_of(w, part, band, p, q);
            for (int c = 0; to >= 0 && c < w.channels; c += kLanes) {
                float* const at = dx + to + c;
                const int rest = w.channels - c;
                if (rest >= kLanes) {
                    store(at, load(at) + load(tile + c));
                } else {
                    store_tail(at, load_tail(at, rest) + load(tile + c), rest);
                }
            }
        }
    }
}

// Zeros in the rows of dx that a band reads from.
void clear_rows(const Window& w, const Band& band, float* dx) {
    const int first = band.first * w.stride;
    const int last = min((band.first + band.count) * w.stride, w.height);
    const std::int64_t row = static_cast<std::int64_t>(w.width) * w.channels;
    __builtin_memset(dx + (band.image * w.height + first) * row, 0,
                     static_cast<std::size_t>((last - first) * row * 4));
}

}  // namespace

void sampled(const SampledArgs& a) {
    const Window& w = a.window;
    const Bands bands(w);
    const int slices = slices_for(bands.count, a.threads);
    std::int64_t panel_at[2] = {0, 0};
    std::int64_t panel_floats = 0;
    for (int i = 0; i < a.part_count; ++i) {
        panel_at[i] = panel_floats;
        panel_floats += aligned_floats(packed_size(w.channels, a.parts[i].columns));
    }
    const std::int64_t tile_floats = bands.floats(w, w.channels);
    const std::int64_t own = tile_floats + aligned_floats(statistics_floats(a.columns));
    const Block block(panel_floats + slices * (own + kStatisticsPlace));
    float* const panels = block.get();
    Statistics* const statistics =
        reinterpret_cast<Statistics*>(panels + panel_floats + slices * own);
    for (int i = 0; i < a.part_count; ++i) {
        const SampledPart& part = a.parts[i];
        pack_panels(panels + panel_at[i], part.weight, 1, w.channels, w.channels, part.columns,
                    part.columns);
    }
#pragma omp parallel for schedule(static) num_threads(slices)
    for (int s = 0; s < slices; ++s) {
        float* const tile = panels + panel_floats + s * own;
        statistics[s] = statistics_in(tile + tile_floats, a.columns);
        const std::int64_t last = slice_begin(bands.count, slices, s + 1);
        for (std::int64_t t = slice_begin(bands.count, slices, s); t < last; ++t) {
            const Band band = bands.at(w, t);
            const int pixels = band.count * w.out_width;
            float* const z = a.z + (band.image * w.out_height + band.first) * w.out_width *
                                       static_cast<std::int64_t>(a.columns);
            for (int i = 0; i < a.part_count; ++i) {
                const SampledPart& part = a.parts[i];
                take_samples(a, part, band, tile);
                const Segment segment{tile, w.channels, w.channels, 0};
                StoreRows sink{z + part.first, a.columns, part.columns};
                multiply_all({&segment, 1}, pixels, panels + panel_at[i], w.channels, part.columns,
                             sink);
            }
            if (a.statistics != nullptr) {
                statistics_add(statistics[s], z, pixels);
            }
        }
    }
    if (a.statistics != nullptr) {
        statistics_finish(statistics, slices, a.statistics);
    }
}

namespace {

// What the backward pass of one slice works in.
struct SampledMemory {
    const float* table;
    int vectors;
    UpstreamMode mode;
    const float* panels[2];
    float* tile;
    float* dz;
    OuterSums outer[2];
};

void backward_band(const SampledBackwardArgs& b, const SampledMemory& memory, const Band& band) {
    const SampledArgs& a = b.forward;
    const Window& w = a.window;
    const int pixels = band.count * w.out_width;
    const std::int64_t at = (band.image * w.out_height + band.first) *
                            static_cast<std::int64_t>(w.out_width) * a.columns;
    upstream_run(b.up, memory.mode, at, static_cast<std::int64_t>(pixels) * a.columns,
                 memory.table, memory.vectors, memory.dz);
    if (b.dx != nullptr && !b.accumulate) {
        clear_rows(w, band, b.dx);
    }
    for (int i = 0; i < a.part_count; ++i) {
        const SampledPart& part = a.parts[i];
        take_samples(a, part, band, memory.tile);
        outer_add(memory.outer[i], memory.tile, w.channels, memory.dz + part.first, a.columns,
                  pixels);
        if (b.dx != nullptr) {
            const Segment segment{memory.dz + part.first, a.columns, part.columns, 0};
            multiply_gradient({&segment, 1}, pixels, memory.panels[i], part.columns, w.channels,
                              memory.tile, w.channels, a.relu ? memory.tile : nullptr, w.channels,
                              false);
            give_samples(a, part, band, memory.tile, b.dx);
        }
    }
}

}  // namespace

void sampled_backward(const SampledBackwardArgs& b) {
    constexpr int kBlockBands = 8;  // whose products are added up in float
    const SampledArgs& a = b.forward;
    const Window& w = a.window;
    const Bands bands(w);
    const int slices = slices_for(bands.count, a.threads);
    const int vectors = period_vectors(a.columns, 1);
    const std::int64_t table_floats = aligned_floats(upstream_table_floats(vectors));
    std::int64_t panel_at[2] = {0, 0};
    std::int64_t outer_at[2] = {0, 0};
    std::int64_t panel_floats = 0;
    const std::int64_t dz_at = bands.floats(w, w.channels);
    std::int64_t own = dz_at + bands.floats(w, a.columns);
    OuterSums shapes[2] = {};
    for (int i = 0; i < a.part_count; ++i) {
        panel_at[i] = panel_floats;
        panel_floats += aligned_floats(packed_size(a.parts[i].columns, w.channels));
        shapes[i] = outer_shape(w.channels, a.parts[i].columns, true);
        outer_at[i] = own;
        own += aligned_floats(outer_floats(shapes[i]));
    }
    const Block block(table_floats + panel_floats + slices * own);
    float* const table = block.get();
    float* const panels = table + table_floats;
    fill_upstream(b.up, a.columns, vectors, table);
    for (int i = 0; i < a.part_count; ++i) {
        pack_panels(panels + panel_at[i], a.parts[i].weight, w.channels, 1, a.parts[i].columns,
                    w.channels, w.channels);
    }
#pragma omp parallel for schedule(static) num_threads(slices)
    for (int s = 0; s < slices; ++s) {
        float* const memory = panels + panel_floats + s * own;
        SampledMemory each{table, vectors, upstream_mode(b.up),
                           {panels + panel_at[0], panels + panel_at[1]},
                           memory, memory + dz_at, {shapes[0], shapes[1]}};
        for (int i = 0; i < a.part_count; ++i) {
            outer_start(each.outer[i], memory + outer_at[i]);
        }
        const std::int64_t last = slice_begin(bands.count, slices, s + 1);
        for (std::int64_t t = slice_begin(bands.count, slices, s); t < last; ++t) {
            backward_band(b, each, bands.at(w, t));
            for (int i = 0; i < a.part_count; ++i) {
                if (t % kBlockBands == kBlockBands - 1 || t == last - 1) {
                    outer_flush(each.outer[i]);
                }
            }
        }
    }
    for (int i = 0; i < a.part_count; ++i) {
        for (int d = 0; d < a.parts[i].columns; ++d) {
            for (int c = 0; c < w.channels; ++c) {
                double sum = 0.0;
                for (int s = 0; s < slices; ++s) {
                    OuterSums outer = shapes[i];
                    outer.totals =
                        reinterpret_cast<double*>(panels + panel_floats + s * own + outer_at[i]);
                    sum += outer.total(c, d);
                }
                a.parts[i].dweight[static_cast<std::int64_t>(d) * w.channels + c] =
                    static_cast<float>(sum);
            }
        }
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
