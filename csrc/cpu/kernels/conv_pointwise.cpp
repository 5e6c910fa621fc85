// 1x1 convolution of a concatenation that is never written: tiles of pixels are brought together in
// L1, where forward and backward do all their work.
#include "cpu/kernels/conv.h"
#include "cpu/kernels/segments.h"
#include "cpu/kernels/statistics.h"
#include "cpu/kernels/upstream.h"

namespace hwnas {
namespace HWNAS_ISA {

namespace {

// Pixels of a tile: a multiple of all micro-kernels' rows, about 24 KiB of inputs.
int tile_pixels(int depth) {
    return depth <= 64 ? 96 : depth <= 128 ? 48 : 24;
}

// [pixels, depth] = [relu] of the inputs, from pixel `begin` on.
template <bool kRelu>
void take_tile(const PointwiseArgs& a, std::int64_t begin, int pixels, float* tile) {
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
    // The inputs from left to right, each vector whole: what is too much is written over by the
    // next input, or the next pixel.
    for (int p = 0; p < pixels; ++p) {
        float* to = tile + static_cast<std::int64_t>(p) * a.depth;
        for (int k = 0; k < a.input_count; ++k) {
            const int channels = a.inputs[k].channels;
            const float* const x = a.inputs[k].x + (begin + p) * channels;
            for (int c = 0; c < channels; c += kLanes) {
                const int rest = channels - c;
                const Vec each = rest >= kLanes ? load(x + c) : load_tail(x + c, rest);
                store(to + c, kRelu ? relu(each) : each);
            }
            to += channels;
        }
    }
}

void take(const PointwiseArgs& a, std::int64_t begin, int pixels, float* tile) {
    a.relu ? take_tile<true>(a, begin, pixels, tile) : take_tile<false>(a, begin, pixels, tile);
}

// What a slice works in.
struct Tiles {
    int pixels;
    std::int64_t tiles;

    explicit Tiles(const PointwiseArgs& a)
        : pixels(tile_pixels(a.depth)), tiles((a.pixels + pixels - 1) / pixels) {}
    std::int64_t tile_floats(int channels) const {
        return aligned_floats(static_cast<std::int64_t>(pixels) * channels + 4 * kLanes);
    }
    int count(const PointwiseArgs& a, std::int64_t tile) const {
        const std::int64_t left = a.pixels - tile * pixels;
        return left < pixels ? static_cast<int>(left) : pixels;
    }
};

#if defined(__AVX512F__)
// z of 16 * n + 4 columns wastes most of a vector's lanes on the last four. Here a vector holds four
// columns times four values of depth instead: the left operand is four neighbours, repeated.
constexpr int kNarrow = 4;
constexpr int kMostNarrow = 128;  // depth: one chain of additions each

bool is_narrow(const PointwiseArgs& a) {
    return a.columns == kLanes + kNarrow && a.depth % kNarrow == 0 && a.depth <= kMostNarrow;
}

// For four values of depth: four vectors of the first columns, one of the last four.
void pack_narrow(const PointwiseArgs& a, float* to) {
    for (int i = 0; i < a.depth; i += kNarrow) {
        for (int j = 0; j < kNarrow; ++j) {
            for (int d = 0; d < kLanes; ++d) {
                *to++ = a.weight[static_cast<std::int64_t>(d) * a.depth + i + j];
            }
        }
        for (int d = 0; d < kNarrow; ++d) {
            for (int j = 0; j < kNarrow; ++j) {
                *to++ = a.weight[static_cast<std::int64_t>(kLanes + d) * a.depth + i + j];
            }
        }
    }
}

template <int M>
void narrow_rows(const float* x, int depth, const float* panel, float* z) {
    Vec wide[M];
    Vec last[M];
    for (int m = 0; m < M; ++m) {
        wide[m] = zero();
        last[m] = zero();
    }
    for (int i = 0; i < depth; i += kNarrow, panel += (kNarrow + 1) * kLanes) {
        const Vec four = load(panel + kNarrow * kLanes);
        for (int m = 0; m < M; ++m) {
            const float* const at = x + m * depth + i;
            last[m] += (Vec)_mm512_maskz_broadcast_f32x4(0xFFFF, _mm_loadu_ps(at)) * four;
        }
        for (int j = 0; j < kNarrow; ++j) {
            const Vec right = load(panel + j * kLanes);
            for (int m = 0; m < M; ++m) {
                wide[m] += spread(x[m * depth + i + j]) * right;
            }
        }
    }
    constexpr int kRow = kLanes + kNarrow;
    for (int m = 0; m < M; ++m) {
        const Vec pairs = last[m] + (Vec)_mm512_maskz_permute_ps(0xFFFF, (__m512)last[m], 0xB1);
        const Vec sums = pairs + (Vec)_mm512_maskz_permute_ps(0xFFFF, (__m512)pairs, 0x4E);
        store(z + m * kRow, wide[m]);
        _mm512_mask_compressstoreu_ps(z + m * kRow + kLanes, 0x1111, (__m512)sums);
    }
}

template <int M>
void narrow_rest(int rows, const float* x, int depth, const float* panel, float* z) {
    if constexpr (M > 1) {
        if (rows < M) {
            return narrow_rest<M - 1>(rows, x, depth, panel, z);
        }
    }
    narrow_rows<M>(x, depth, panel, z);
}

void multiply_narrow(const float* x, int pixels, int depth, const float* panel, float* z) {
    constexpr int kRows = 12;
    for (int p = 0; p < pixels; p += kRows) {
        narrow_rest<kRows>(min(kRows, pixels - p), x + static_cast<std::int64_t>(p) * depth, depth,
                           panel, z + static_cast<std::int64_t>(p) * (kLanes + kNarrow));
    }
}
#else
bool is_narrow(const PointwiseArgs&) {
    return false;
}
void pack_narrow(const PointwiseArgs&, float*) {}
void multiply_narrow(const float*, int, int, const float*, float*) {}
#endif

}  // namespace

void pointwise(const PointwiseArgs& a) {
    const Tiles tiles(a);
    const int slices = slices_for(tiles.tiles, a.threads);
    const std::int64_t panel_floats = aligned_floats(packed_size(a.depth, a.columns));
    const bool is_direct = a.input_count == 1 && !a.relu;
    const std::int64_t tile_floats = tiles.tile_floats(a.depth);
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
                take(a, begin, pixels, tile);
            }
            const float* const x = is_direct ? a.inputs[0].x + begin * a.depth : tile;
            if (narrow) {
                multiply_narrow(x, pixels, a.depth, panels, a.z + begin * a.columns);
            } else {
                const Segment segment{x, a.depth, a.depth, 0};
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

// Hands a tile of gradients out to the inputs.
void give_tile(const PointwiseArgs& a, std::int64_t begin, int pixels, const float* tile) {
    for (int k = 0; k < a.input_count; ++k) {
        const ConvInput& to = a.inputs[k];
        if (to.dx != nullptr) {
            const float* from = tile;
            float* dx = to.dx + begin * to.channels;
            for (int p = 0; p < pixels; ++p, from += a.depth, dx += to.channels) {
                for (int c = 0; c < to.channels; c += kLanes) {
                    const int rest = min(to.channels - c, kLanes);
                    Vec value = load(from + c);
                    if (to.accumulate) {
                        value += rest == kLanes ? load(dx + c) : load_tail(dx + c, rest);
                    }
                    if (rest == kLanes) {
                        store(dx + c, value);
                    } else {
                        store_tail(dx + c, value, rest);
                    }
                }
            }
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

// One tile: dz, the weight's gradient, the inputs' gradients.
void backward_tile(const PointwiseBackwardArgs& b, UpstreamMode mode, const float* table,
                   int vectors, const float* panels, bool is_wanted, std::int64_t begin, int pixels,
                   float* tile, float* dz, const OuterSums& outer) {
    const PointwiseArgs& a = b.forward;
    take(a, begin, pixels, tile);
    upstream_run(b.up, mode, begin * a.columns, static_cast<std::int64_t>(pixels) * a.columns,
                 table, vectors, dz);
    outer_add(outer, tile, a.depth, dz, a.columns, pixels);
    if (!is_wanted) {
        return;
    }
    const Segment segment{dz, a.columns, a.columns, 0};
    if (a.input_count == 1) {
        multiply_gradient({&segment, 1}, pixels, panels, a.columns, a.depth,
                          a.inputs[0].dx + begin * a.depth, a.depth, a.relu ? tile : nullptr,
                          a.depth, a.inputs[0].accumulate);
    } else {  // in place of the inputs, which nothing reads any more
        multiply_gradient({&segment, 1}, pixels, panels, a.columns, a.depth, tile, a.depth,
                          a.relu ? tile : nullptr, a.depth, false);
        give_tile(a, begin, pixels, tile);
    }
}

}  // namespace

void pointwise_backward(const PointwiseBackwardArgs& b) {
    constexpr int kBlockTiles = 8;  // whose products are added up in float
    const PointwiseArgs& a = b.forward;
    const Tiles tiles(a);
    const int slices = slices_for(tiles.tiles, a.threads);
    const int vectors = period_vectors(a.columns, 1);
    const std::int64_t table_floats = aligned_floats(upstream_table_floats(vectors));
    const std::int64_t panel_floats = aligned_floats(packed_size(a.columns, a.depth));
    const std::int64_t tile_floats = tiles.tile_floats(a.depth);
    const std::int64_t dz_floats = tiles.tile_floats(a.columns);
    const OuterSums shape = outer_shape(a.depth, a.columns, true);
    const std::int64_t own = tile_floats + dz_floats + aligned_floats(outer_floats(shape));
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
        const std::int64_t last = slice_begin(tiles.tiles, slices, s + 1);
        for (std::int64_t t = slice_begin(tiles.tiles, slices, s); t < last; ++t) {
            backward_tile(b, mode, table, vectors, panels, is_wanted, t * tiles.pixels,
                          tiles.count(a, t), tile, dz, outer);
            if (t % kBlockTiles == kBlockTiles - 1 || t == last - 1) {
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
