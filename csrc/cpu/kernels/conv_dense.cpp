// k x k convolution, one image at a time. relu(x) is copied into L1 or L2 with the padding around it;
// the values under a window are then a few runs of memory (segments.h). The gradient of x is the same
// kind of product: dz, spread out by the stride, under the mirrored window.
#include "cpu/kernels/conv.h"
#include "cpu/kernels/segments.h"
#include "cpu/kernels/statistics.h"
#include "cpu/kernels/upstream.h"

namespace hwnas {
namespace HWNAS_ISA {

namespace {

// An image with zeros on the left and on the right; rows outside are left out by who reads.
struct Padded {
    int rows;
    int places;         // pixels in a row
    int channels;
    std::int64_t step;  // floats from row to row

    std::int64_t floats() const { return aligned_floats(rows * step + 4 * kLanes); }
};

Padded padded_input(const Window& w) {
    const int places = w.width + 2 * w.padding();
    return {w.height, places, w.channels, static_cast<std::int64_t>(places) * w.channels};
}

// dz, one pixel every `stride` places.
Padded padded_gradient(const Window& w, int columns) {
    const int places = w.width + 2 * w.padding();
    return {w.out_height, places, columns, static_cast<std::int64_t>(places) * columns};
}

void clear(float* memory, std::int64_t floats) {
    __builtin_memset(memory, 0, static_cast<std::size_t>(floats) * 4);
}

// [relu] of an image into the middle of its place; the padding is zero already.
void take_image(const DenseArgs& a, std::int64_t image, const Padded& at, float* memory) {
    const Window& w = a.window;
    const std::int64_t n = static_cast<std::int64_t>(w.width) * w.channels;
    for (int row = 0; row < w.height; ++row) {
        const float* const x = a.x + (image * w.height + row) * n;
        float* const to = memory + row * at.step + static_cast<std::int64_t>(w.padding()) * w.channels;
        std::int64_t i = 0;
        for (; i + kLanes <= n; i += kLanes) {
            store(to + i, a.relu ? relu(load(x + i)) : load(x + i));
        }
        const int rest = static_cast<int>(n - i);
        const Vec last = load_tail(x + i, rest);
        store_tail(to + i, a.relu ? relu(last) : last, rest);
    }
}

// The runs under the window at output row p, for its first pixel: whole rows of the window without
// dilation, else single taps.
Segments segments_at(const Window& w, const Padded& at, const float* memory, int p,
                     Segment* segments) {
    const int runs = w.dilation == 1 ? 1 : w.kernel;
    const int depth = w.dilation == 1 ? w.kernel * w.channels : w.channels;
    int count = 0;
    for (int t = w.first_tap(p); t < w.last_tap(p, w.height); ++t) {
        const float* const row = memory + w.source(p, t) * at.step;
        for (int r = 0; r < runs; ++r) {
            segments[count++] = {row + static_cast<std::int64_t>(r * w.dilation) * w.channels,
                                 static_cast<std::int64_t>(w.stride) * w.channels, depth,
                                 (t * runs + r) * depth};
        }
    }
    return {segments, count};
}

// The runs of dz that reach row `row` of x. Their rows of the right operand lie as in
// pack_mirrored: taps from the last to the first.
Segments mirrored_at(const Window& w, const Padded& at, const float* memory, int row,
                     Segment* segments) {
    const int runs = w.dilation == 1 ? 1 : w.kernel;
    const int depth = w.dilation == 1 ? w.kernel * at.channels : at.channels;
    int count = 0;
    for (int t = 0; t < w.kernel; ++t) {
        const int reached = row + w.padding() - t * w.dilation;
        const int p = reached / w.stride;
        if (reached < 0 || p * w.stride != reached || p >= w.out_height) {
            continue;
        }
        for (int r = 0; r < runs; ++r) {
            segments[count++] = {
                memory + p * at.step + static_cast<std::int64_t>(r * w.dilation) * at.channels,
                at.channels, depth, (t * runs + r) * depth};
        }
    }
    return {segments, count};
}

// Weights [columns, channels, k, k] as a right operand [(tap row, tap column, channel), column].
void order_forward(const DenseArgs& a, float* to) {
    const Window& w = a.window;
    const int taps = w.kernel * w.kernel;
    for (int t = 0; t < taps; ++t) {
        for (int c = 0; c < w.channels; ++c) {
            for (int d = 0; d < a.columns; ++d) {
                *to++ = a.weight[(static_cast<std::int64_t>(d) * w.channels + c) * taps + t];
            }
        }
    }
}

// ... and as [(tap row, tap column from the last on, column), channel].
void order_mirrored(const DenseArgs& a, float* to) {
    const Window& w = a.window;
    const int taps = w.kernel * w.kernel;
    for (int i = 0; i < w.kernel; ++i) {
        for (int j = w.kernel - 1; j >= 0; --j) {
            for (int d = 0; d < a.columns; ++d) {
                for (int c = 0; c < w.channels; ++c) {
                    *to++ = a.weight[(static_cast<std::int64_t>(d) * w.channels + c) * taps +
                                     i * w.kernel + j];
                }
            }
        }
    }
}

}  // namespace

void dense(const DenseArgs& a) {
    const Window& w = a.window;
    const int depth = w.kernel * w.kernel * w.channels;
    const int slices = slices_for(w.images, a.threads);
    const Padded at = padded_input(w);
    const std::int64_t panel_floats = aligned_floats(packed_size(depth, a.columns));
    const std::int64_t segment_floats =
        aligned_floats(static_cast<std::int64_t>(sizeof(Segment) / 4) * w.kernel * w.kernel);
    const std::int64_t own =
        at.floats() + segment_floats + aligned_floats(statistics_floats(a.columns));
    const Block block(panel_floats + slices * (own + kStatisticsPlace));
    float* const panels = block.get();
    Statistics* const statistics =
        reinterpret_cast<Statistics*>(panels + panel_floats + slices * own);
    {
        const Block ordered(static_cast<std::int64_t>(depth) * a.columns);
        order_forward(a, ordered.get());
        pack_panels(panels, ordered.get(), a.columns, 1, depth, a.columns, a.columns);
    }
#pragma omp parallel for schedule(static) num_threads(slices)
    for (int s = 0; s < slices; ++s) {
        float* const memory = panels + panel_floats + s * own;
        Segment* const segments = reinterpret_cast<Segment*>(memory + at.floats());
        statistics[s] = statistics_in(memory + at.floats() + segment_floats, a.columns);
        clear(memory, at.floats());
        const std::int64_t last = slice_begin(w.images, slices, s + 1);
        for (std::int64_t image = slice_begin(w.images, slices, s); image < last; ++image) {
            take_image(a, image, at, memory);
            for (int p = 0; p < w.out_height; ++p) {
                float* const z = a.z + (image * w.out_height + p) *
                                           static_cast<std::int64_t>(w.out_width) * a.columns;
                StoreRows sink{z, a.columns, a.columns};
                multiply_all(segments_at(w, at, memory, p, segments), w.out_width, panels, depth,
                             a.columns, sink);
                if (a.statistics != nullptr) {
                    statistics_add(statistics[s], z, w.out_width);
                }
            }
        }
    }
    if (a.statistics != nullptr) {
        statistics_finish(statistics, slices, a.statistics);
    }
}

namespace {

// What the backward pass of one slice works in.
struct DenseMemory {
    const float* table;
    int vectors;
    UpstreamMode mode;
    const float* panels;
    Padded x_at;
    Padded dz_at;
    float* x;
    float* dz;
    float* row;  // of dz, before it is spread out
    Segment* segments;
    OuterSums outer;
};

void take_gradient(const DenseBackwardArgs& b, const DenseMemory& m, std::int64_t image) {
    const Window& w = b.forward.window;
    const int columns = b.forward.columns;
    const std::int64_t n = static_cast<std::int64_t>(w.out_width) * columns;
    for (int p = 0; p < w.out_height; ++p) {
        float* to = m.dz + p * m.dz_at.step + static_cast<std::int64_t>(w.padding()) * columns;
        float* const row = w.stride == 1 ? to : m.row;
        upstream_run(b.up, m.mode, (image * w.out_height + p) * n, n, m.table, m.vectors, row);
        for (int q = 0; w.stride > 1 && q < w.out_width; ++q, to += w.stride * columns) {
            __builtin_memcpy(to, row + q * columns, static_cast<std::size_t>(columns) * 4);
        }
    }
}

void backward_image(const DenseBackwardArgs& b, const DenseMemory& m, std::int64_t image) {
    const DenseArgs& a = b.forward;
    const Window& w = a.window;
    take_image(a, image, m.x_at, m.x);
    take_gradient(b, m, image);
    const std::int64_t left = static_cast<std::int64_t>(w.padding());
    for (int p = 0; p < w.out_height; ++p) {
        const Segments runs = segments_at(w, m.x_at, m.x, p, m.segments);
        const float* const dz = m.dz + p * m.dz_at.step + left * a.columns;
        for (int i = 0; i < runs.count; ++i) {
            const Segment& run = runs.items[i];
            add_outer(run.a, run.row, run.depth, dz, static_cast<std::int64_t>(w.stride) * a.columns,
                      a.columns, w.out_width, m.outer.sums + run.first * m.outer.step(),
                      m.outer.step());
        }
    }
    outer_flush(m.outer);
    for (int row = 0; b.dx != nullptr && row < w.height; ++row) {
        const Segments runs = mirrored_at(w, m.dz_at, m.dz, row, m.segments);
        multiply_gradient(runs, w.width, m.panels, w.kernel * w.kernel * a.columns, w.channels,
                          b.dx + (image * w.height + row) * m.x_at.channels *
                                     static_cast<std::int64_t>(w.width),
                          w.channels,
                          a.relu ? m.x + row * m.x_at.step + left * w.channels : nullptr,
                          w.channels, b.accumulate);
    }
}

// [columns, channels, k, k] from the slices' sums of [(tap, channel), column].
void finish_dense(const DenseBackwardArgs& b, const OuterSums& shape, const float* first,
                  std::int64_t own, int slices) {
    const Window& w = b.forward.window;
    const int taps = w.kernel * w.kernel;
    for (int d = 0; d < b.forward.columns; ++d) {
        for (int c = 0; c < w.channels; ++c) {
            for (int t = 0; t < taps; ++t) {
                double sum = 0.0;
                for (int s = 0; s < slices; ++s) {
                    sum += reinterpret_cast<const double*>(
                        first + s * own)[static_cast<std::int64_t>(t * w.channels + c) *
                                             shape.step() + d];
                }
                b.dweight[(static_cast<std::int64_t>(d) * w.channels + c) * taps + t] =
                    static_cast<float>(sum);
            }
        }
    }
}

}  // namespace

void dense_backward(const DenseBackwardArgs& b) {
    const DenseArgs& a = b.forward;
    const Window& w = a.window;
    const int taps = w.kernel * w.kernel;
    const int slices = slices_for(w.images, a.threads);
    const int vectors = period_vectors(a.columns, 1);
    const Padded x_at = padded_input(w);
    const Padded dz_at = padded_gradient(w, a.columns);
    const OuterSums shape = outer_shape(taps * w.channels, a.columns, false);
    const std::int64_t table_floats = aligned_floats(upstream_table_floats(vectors));
    const std::int64_t panel_floats = aligned_floats(packed_size(taps * a.columns, w.channels));
    const std::int64_t row_floats =
        aligned_floats(static_cast<std::int64_t>(w.out_width) * a.columns + kLanes);
    const std::int64_t segment_floats =
        aligned_floats(static_cast<std::int64_t>(sizeof(Segment) / 4) * taps);
    const std::int64_t outer_at = x_at.floats() + dz_at.floats() + row_floats + segment_floats;
    const std::int64_t own = outer_at + aligned_floats(outer_floats(shape));
    const Block block(table_floats + panel_floats + slices * own);
    float* const table = block.get();
    float* const panels = table + table_floats;
    float* const first = panels + panel_floats;
    fill_upstream(b.up, a.columns, vectors, table);
    if (b.dx != nullptr) {
        const Block ordered(static_cast<std::int64_t>(taps) * a.columns * w.channels);
        order_mirrored(a, ordered.get());
        pack_panels(panels, ordered.get(), w.channels, 1, taps * a.columns, w.channels, w.channels);
    }
#pragma omp parallel for schedule(static) num_threads(slices)
    for (int s = 0; s < slices; ++s) {
        float* const x = first + s * own;
        float* const dz = x + x_at.floats();
        float* const row = dz + dz_at.floats();
        DenseMemory each{table, vectors, upstream_mode(b.up), panels, x_at, dz_at, x, dz, row,
                         reinterpret_cast<Segment*>(row + row_floats), shape};
        outer_start(each.outer, x + outer_at);
        clear(x, x_at.floats() + dz_at.floats());
        const std::int64_t last = slice_begin(w.images, slices, s + 1);
        for (std::int64_t image = slice_begin(w.images, slices, s); image < last; ++image) {
            backward_image(b, each, image);
        }
    }
    finish_dense(b, shape, first + outer_at, own, slices);
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
