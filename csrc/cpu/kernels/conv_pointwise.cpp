// 1x1 convolution of a concatenation that is never written: tiles of pixels are brought together in
// L1, where forward and backward do all their work.
#include "cpu/kernels/conv.h"
#include "cpu/kernels/fetch.h"
#include "cpu/kernels/pointwise_narrow.h"
#include "cpu/kernels/segments.h"
#include "cpu/kernels/statistics.h"
#include "cpu/kernels/upstream.h"

namespace hwnas {
namespace HWNAS_ISA {

namespace {

// A tile: pixels of all inputs side by side. Rows are whole cache lines, so that no vector of the
// products lies on two of them.
struct Tiles {
    int pixels;
    std::int64_t tiles;
    int row;  // floats from pixel to pixel

    Tiles(const PointwiseArgs& a, int in_tile)
        : pixels(in_tile), tiles((a.pixels + pixels - 1) / pixels), row(a.depth) {
        if (a.input_count > 1) {  // an input is written in whole vectors
            int first = 0;
            for (int k = 0; k < a.input_count; ++k) {
                row = max(row, first + round_up(a.inputs[k].channels, kLanes));
                first += a.inputs[k].channels;
            }
            row = round_up(row, kLanes);
        }
    }
    std::int64_t tile_floats(int each) const {
        return aligned_floats(static_cast<std::int64_t>(pixels) * each + 4 * kLanes);
    }
    // Pixels of a tile; none behind the last one.
    int count(const PointwiseArgs& a, std::int64_t tile) const {
        const std::int64_t left = a.pixels - tile * pixels;
        return left <= 0 ? 0 : left < pixels ? static_cast<int>(left) : pixels;
    }
};

// Of `pixels` pixels in a row, those whose last vector, taken whole, still ends inside the row.
int whole_pixels(std::int64_t pixels, int channels) {
    const std::int64_t whole = pixels - (round_up(channels, kLanes) - 1) / channels;
    return whole < 0 ? 0 : static_cast<int>(whole);
}

// Takes one input. Each vector is written whole: what is too much is written over by the next
// input, and so is what was read of the next pixel.
template <int kVectors, bool kRelu>
void take_input(const float* x, int channels, int pixels, int whole, float* to, int row) {
    const int vectors = kVectors > 0 ? kVectors : round_up(channels, kLanes) / kLanes;
    int p = 0;
    for (; p < whole; ++p, x += channels, to += row) {
        for (int v = 0; v < vectors; ++v) {
            const Vec each = load(x + v * kLanes);
            store(to + v * kLanes, kRelu ? relu(each) : each);
        }
    }
    for (; p < pixels; ++p, x += channels, to += row) {
        for (int v = 0; v < vectors; ++v) {
            const Vec each = load_tail(x + v * kLanes, min(channels - v * kLanes, kLanes));
            store(to + v * kLanes, kRelu ? relu(each) : each);
        }
    }
}

// [pixels, row] = [relu] of the inputs, from pixel `begin` on.
template <bool kRelu>
void take_tile(const PointwiseArgs& a, std::int64_t begin, int pixels, float* tile, int row) {
    if (a.input_count == 1) {
        const float* const x = a.inputs[0].x + begin * a.depth;
        const std::int64_t n = static_cast<std::int64_t>(pixels) * a.depth;
        std::int64_t i = 0;
        for (; i + kLanes <= n; i += kLanes) {
            store(tile + i, kRelu ? relu(load(x + i)) : load(x + i));
        }
        const Vec last = load_tail(x + i, static_cast<int>(n - i));
        store(tile + i, kRelu ? relu(last) : last);
        return;
    }
    for (int k = 0; k < a.input_count; ++k) {
        const int channels = a.inputs[k].channels;
        const float* const x = a.inputs[k].x + begin * channels;
        const int whole = min(pixels, whole_pixels(a.pixels - begin, channels));
        if (channels <= kLanes) {
            take_input<1, kRelu>(x, channels, pixels, whole, tile, row);
        } else if (channels <= 2 * kLanes) {
            take_input<2, kRelu>(x, channels, pixels, whole, tile, row);
        } else if (channels <= 3 * kLanes) {
            take_input<3, kRelu>(x, channels, pixels, whole, tile, row);
        } else {
            take_input<0, kRelu>(x, channels, pixels, whole, tile, row);
        }
        tile += channels;
    }
}

void take(const PointwiseArgs& a, std::int64_t begin, int pixels, float* tile, int row) {
    a.relu ? take_tile<true>(a, begin, pixels, tile, row)
           : take_tile<false>(a, begin, pixels, tile, row);
}

}  // namespace

void pointwise(const PointwiseArgs& a) {
    // A multiple of all micro-kernels' rows, about 24 KiB of inputs.
    const Tiles tiles(a, a.depth <= 64 ? 96 : a.depth <= 128 ? 48 : 24);
    const int slices = slices_for(tiles.tiles, a.threads);
    const std::int64_t panel_floats = aligned_floats(packed_size(a.depth, a.columns));
    const bool is_direct = a.input_count == 1 && !a.relu;
    const std::int64_t tile_floats = tiles.tile_floats(tiles.row);
    const std::int64_t own = tile_floats + aligned_floats(statistics_floats(a.columns));
    const Block block(panel_floats + slices * (own + kStatisticsPlace));
    float* const panels = block.get();
    Statistics* const statistics = reinterpret_cast<Statistics*>(panels + panel_floats + slices * own);
    const bool narrow = is_narrow(a);
    if (narrow) {
        pack_narrow(a, panels);
    } else {
        pack_panels(panels, a.weight, 1, a.depth, a.depth, a.columns, a.columns);
    }
#pragma omp parallel for schedule(static) num_threads(slices)
    for (int s = 0; s < slices; ++s) {
        float* const tile = panels + panel_floats + s * own;
        statistics[s] = statistics_in(tile + tile_floats, a.columns);
        const std::int64_t last = slice_begin(tiles.tiles, slices, s + 1);
        for (std::int64_t t = slice_begin(tiles.tiles, slices, s); t < last; ++t) {
            const std::int64_t begin = t * tiles.pixels;
            const int pixels = tiles.count(a, t);
            if (!is_direct) {
                take(a, begin, pixels, tile, tiles.row);
            }
            const float* const x = is_direct ? a.inputs[0].x + begin * a.depth : tile;
            if (narrow) {
                multiply_narrow(x, tiles.row, pixels, a.depth, panels, a.z + begin * a.columns);
            } else {
                const Segment segment{x, tiles.row, a.depth, 0};
                StoreRows sink{a.z + begin * a.columns, a.columns, a.columns};
                multiply_all({&segment, 1}, pixels, panels, a.depth, a.columns, sink);
            }
            if (a.statistics != nullptr) {
                statistics_add(statistics[s], a.z + begin * a.columns, pixels);
            }
        }
    }
    if (a.statistics != nullptr) {
        statistics_finish(statistics, slices, a.statistics);
    }
}

namespace {

// Gives one input its gradient. Without additions each vector is written whole: what is too much is
// written over by the next pixel.
template <int kVectors, bool kAdd>
void give_input(const float* from, int row, int pixels, int channels, float* dx) {
    const int vectors = kVectors > 0 ? kVectors : round_up(channels, kLanes) / kLanes;
    const int rest = channels - (vectors - 1) * kLanes;
    int p = 0;
    if (!kAdd) {
        const int whole = whole_pixels(pixels, channels);
        for (; p < whole; ++p, from += row, dx += channels) {
            for (int v = 0; v < vectors; ++v) {
                store(dx + v * kLanes, load(from + v * kLanes));
            }
        }
    }
    for (; p < pixels; ++p, from += row, dx += channels) {
        for (int v = 0; v < vectors - 1; ++v) {
            float* const to = dx + v * kLanes;
            store(to, kAdd ? load(from + v * kLanes) + load(to) : load(from + v * kLanes));
        }
        float* const to = dx + (vectors - 1) * kLanes;
        const Vec last = load(from + (vectors - 1) * kLanes);
        store_tail(to, kAdd ? last + load_tail(to, rest) : last, rest);
    }
}

template <bool kAdd>
void give_any(const float* from, int row, int pixels, int channels, float* dx) {
    if (channels <= kLanes) {
        give_input<1, kAdd>(from, row, pixels, channels, dx);
    } else if (channels <= 2 * kLanes) {
        give_input<2, kAdd>(from, row, pixels, channels, dx);
    } else if (channels <= 3 * kLanes) {
        give_input<3, kAdd>(from, row, pixels, channels, dx);
    } else {
        give_input<0, kAdd>(from, row, pixels, channels, dx);
    }
}

// Hands a tile of gradients out to the inputs.
void give_tile(const PointwiseArgs& a, std::int64_t begin, int pixels, const float* tile, int row) {
    for (int k = 0; k < a.input_count; ++k) {
        const ConvInput& to = a.inputs[k];
        if (to.dx != nullptr) {
            float* const dx = to.dx + begin * to.channels;
            to.accumulate ? give_any<true>(tile, row, pixels, to.channels, dx)
                          : give_any<false>(tile, row, pixels, to.channels, dx);
        }
        tile += to.channels;
    }
}

bool has_gradients(const PointwiseArgs& a) {
    for (int k = 0; k < a.input_count; ++k) {
        if (a.inputs[k].dx != nullptr) {
            return true;
        }
    }
    return false;
}

template <bool kMasked, bool kAdd>
void gradient_tile(const float* dz, int pixels, const float* panels, int depth, int columns,
                   float* to, int row, const float* source, Fetch& fetch) {
    FetchingSink<GradientRows<kMasked, kAdd>> sink{{to, row, columns, source, row}, fetch};
    if (depth <= kChain) {
        multiply_panels(dz, depth, pixels, panels, depth, columns, sink);
    } else {
        const Segment segment{dz, depth, depth, 0};
        multiply_all({&segment, 1}, pixels, panels, depth, columns, sink);
    }
}

// What comes soon: where this tile's gradients go, then the values of the next.
void fetch_backward(Fetch& fetch, const PointwiseBackwardArgs& b, UpstreamMode mode,
                    std::int64_t begin, int pixels, int next_pixels) {
    const PointwiseArgs& a = b.forward;
    const std::int64_t next = begin + pixels;
    fetch.start();
    for (int k = 0; k < a.input_count; ++k) {
        const ConvInput& input = a.inputs[k];
        if (input.dx != nullptr) {
            fetch.add(input.dx + begin * input.channels,
                      static_cast<std::int64_t>(pixels) * input.channels);
        }
    }
    for (int k = 0; k < a.input_count; ++k) {
        const ConvInput& input = a.inputs[k];
        fetch.add(input.x + next * input.channels,
                  static_cast<std::int64_t>(next_pixels) * input.channels);
    }
    const std::int64_t floats = static_cast<std::int64_t>(next_pixels) * a.columns;
    fetch.add(b.up.dy + next * a.columns, floats);
    if (mode != UpstreamMode::scaled) {
        fetch.add(b.up.z + next * a.columns, floats);
    }
}

// One tile: dz, the weight's gradient, the inputs' gradients.
void backward_tile(const PointwiseBackwardArgs& b, UpstreamMode mode, const float* table,
                   int vectors, const float* panels, bool is_wanted, std::int64_t begin, int pixels,
                   float* tile, int row, float* dz, const OuterSums& outer, Fetch& fetch) {
    const PointwiseArgs& a = b.forward;
    take(a, begin, pixels, tile, row);
    upstream_run(b.up, mode, begin * a.columns, static_cast<std::int64_t>(pixels) * a.columns,
                 table, vectors, dz);
    const auto between = [&fetch] { fetch(2); };  // takes twice as long as a tile of gradients
    outer_add(outer, tile, row, dz, a.columns, pixels, between);
    if (!is_wanted) {
        return;
    }
    const bool is_single = a.input_count == 1;
    float* const to = is_single ? a.inputs[0].dx + begin * a.depth : tile;
    const bool is_added = is_single && a.inputs[0].accumulate;
    const auto run = a.relu ? (is_added ? gradient_tile<true, true> : gradient_tile<true, false>)
                            : (is_added ? gradient_tile<false, true> : gradient_tile<false, false>);
    run(dz, pixels, panels, a.columns, a.depth, to, row, tile, fetch);
    if (!is_single) {
        give_tile(a, begin, pixels, tile, row);
    }
}

}  // namespace

void pointwise_backward(const PointwiseBackwardArgs& b) {
    const PointwiseArgs& a = b.forward;
    const Tiles tiles(a, a.depth <= 64 ? 96 : 32);  // with their gradients in L1, or nearly so
    const int block_tiles = 384 / tiles.pixels;     // whose products are added up in float
    const int slices = slices_for(tiles.tiles, a.threads);
    const int vectors = period_vectors(a.columns, 1);
    const std::int64_t table_floats = aligned_floats(upstream_table_floats(vectors));
    const std::int64_t panel_floats = aligned_floats(packed_size(a.columns, a.depth));
    const std::int64_t tile_floats = tiles.tile_floats(tiles.row);
    const std::int64_t dz_floats = tiles.tile_floats(a.columns);
    const OuterSums shape = outer_shape(a.depth, a.columns, true);
    const std::int64_t outer_place = aligned_floats(outer_floats(shape));
    const std::int64_t own =
        tile_floats + dz_floats + outer_place + Fetch::floats(2 * a.input_count + 2);
    const Block block(table_floats + panel_floats + slices * own);
    float* const table = block.get();
    float* const panels = table + table_floats;
    fill_upstream(b.up, a.columns, vectors, table);
    pack_panels(panels, a.weight, a.depth, 1, a.columns, a.depth, a.depth);
    const UpstreamMode mode = upstream_mode(b.up);
    const bool is_wanted = has_gradients(a);
#pragma omp parallel for schedule(static) num_threads(slices)
    for (int s = 0; s < slices; ++s) {
        float* const tile = panels + panel_floats + s * own;
        float* const dz = tile + tile_floats;
        OuterSums outer = shape;
        outer_start(outer, dz + dz_floats);
        Fetch fetch(dz + dz_floats + outer_place);
        const std::int64_t last = slice_begin(tiles.tiles, slices, s + 1);
        for (std::int64_t t = slice_begin(tiles.tiles, slices, s); t < last; ++t) {
            const int pixels = tiles.count(a, t);
            fetch_backward(fetch, b, mode, t * tiles.pixels, pixels, tiles.count(a, t + 1));
            backward_tile(b, mode, table, vectors, panels, is_wanted, t * tiles.pixels,
                          pixels, tile, tiles.row, dz, outer, fetch);
            if (t % block_tiles == block_tiles - 1 || t == last - 1) {
                outer_flush(outer);
            }
        }
    }
    for (int d = 0; d < a.columns; ++d) {
        for (int k = 0; k < a.depth; ++k) {
            double sum = 0.0;
            for (int s = 0; s < slices; ++s) {
                OuterSums outer = shape;
                outer.totals = reinterpret_cast<double*>(panels + panel_floats + s * own +
                                                         tile_floats + dz_floats);
                sum += outer.total(k, d);
            }
            b.dweight[static_cast<std::int64_t>(d) * a.depth + k] = static_cast<float>(sum);
        }
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
