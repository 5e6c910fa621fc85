// Backward: a ring of rows of dz in L1, from which each row of dx is gathered. With stride 1 rows
// are flat memory with padding on both sides: zeros in dz, no tap in the index.
#include "cpu/kernels/gemm.h"
#include "cpu/kernels/mask.h"
#include "cpu/kernels/pool.h"
#include "cpu/kernels/upstream.h"

namespace hwnas {
namespace HWNAS_ISA {

namespace {

constexpr int kNoTap = 255;

// What a slice of the images works with. Rows have `pad` values on their left and as many, and a
// vector more, on their right.
struct Gather {
    const PoolBackwardArgs* args;
    UpstreamMode mode;
    const float* table;
    int vectors;
    int rows;            // of the ring
    std::int64_t pad;
    std::int64_t step;   // values from row to row
    float* dz;           // average: one row; maximum: [rows, step]
    float* sums;         // average: [rows, step], dz added along the width
    std::uint8_t* taps;  // maximum: [rows, step]
    float* line;         // a row of dx, where the stride is not 1

    float* dz_row(int row) const { return dz + row % rows * step + pad; }
    float* sum_row(int row) const { return sums + row % rows * step + pad; }
    std::uint8_t* tap_row(int row) const { return taps + row % rows * step + pad; }
};

int ring_rows(const Window& w) {
    return (w.reach() - 1) / w.stride + 1;
}

std::int64_t row_pad(const Window& w) {
    return static_cast<std::int64_t>(w.padding()) * w.channels;
}

std::int64_t row_step(const Window& w) {
    const int widest = max(w.width, w.out_width);
    return static_cast<std::int64_t>(widest) * w.channels + 2 * row_pad(w) + 2 * kLanes;
}

// Distance from a value of dx to the value of dz that tap `tap` brings there, with stride 1.
HWNAS_INLINE std::int64_t shift_of(const Window& w, int tap) {
    return static_cast<std::int64_t>(w.padding() - tap * w.dilation) * w.channels;
}

// Rows of dz whose tap `tap` lies on row `row` of dx: at most one, or -1.
HWNAS_INLINE int row_above(const Window& w, int row, int tap) {
    const int reached = row + w.padding() - tap * w.dilation;
    const int found = reached / w.stride;
    return reached >= 0 && found * w.stride == reached && found < w.out_height ? found : -1;
}

// Writes or adds n values; `from` may be read a vector beyond them.
void put_row(const float* from, std::int64_t n, float factor, bool is_added, float* dx) {
    for (std::int64_t i = 0; i < n; i += kLanes) {
        const int rest = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
        Vec value = load(from + i) * factor;
        if (is_added) {
            value += rest == kLanes ? load(dx + i) : load_tail(dx + i, rest);
        }
        if (rest == kLanes) {
            store(dx + i, value);
        } else {
            store_tail(dx + i, value, rest);
        }
    }
}

// -- maximum ----------------------------------------------------------------------------------

// A row of dz and of the index into the ring.
void take_max_row(const Gather& g, std::int64_t image, int p) {
    const Window& w = g.args->window;
    const std::int64_t n = static_cast<std::int64_t>(w.out_width) * w.channels;
    const std::int64_t at = (image * w.out_height + p) * n;
    upstream_run(g.args->up, g.mode, at, n, g.table, g.vectors, g.dz_row(p));
    __builtin_memcpy(g.tap_row(p), g.args->index + at, static_cast<std::size_t>(n));
}

struct Sources {
    const float* dz[kMostPoolTaps];
    const std::uint8_t* taps[kMostPoolTaps];
    int first_tap[kMostPoolTaps];  // index of the first tap of the window's row
    int count;
};

Sources sources_of(const Gather& g, int row) {
    const Window& w = g.args->window;
    Sources found;
    found.count = 0;
    for (int t = w.kernel - 1; t >= 0; --t) {
        const int p = row_above(w, row, t);
        if (p >= 0) {
            found.dz[found.count] = g.dz_row(p);
            found.taps[found.count] = g.tap_row(p);
            found.first_tap[found.count++] = t * w.kernel;
        }
    }
    return found;
}

// Stride 1: each value of dx asks all windows around it whether it was their maximum.
template <int kTaps, bool kAdd>
void gather_max(const Window& w, const Sources& from, std::int64_t n, float* dx) {
    const int taps = kTaps > 0 ? kTaps : w.kernel;
    for (std::int64_t i = 0; i < n; i += kLanes) {
        const int rest = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
        Vec sum = zero();
        if (kAdd) {
            sum = rest == kLanes ? load(dx + i) : load_tail(dx + i, rest);
        }
        for (int s = 0; s < from.count; ++s) {
            for (int t = 0; t < taps; ++t) {
                const std::int64_t at = i + shift_of(w, t);
                sum = add_where(from.taps[s] + at, from.first_tap[s] + t, load(from.dz[s] + at),
                                sum);
            }
        }
        if (rest == kLanes) {
            store(dx + i, sum);
        } else {
            store_tail(dx + i, sum, rest);
        }
    }
}

// Other strides: each window hands its gradient to the tap that won.
void scatter_max(const Window& w, const Sources& from, float* line) {
    for (int s = 0; s < from.count; ++s) {
        for (int q = 0; q < w.out_width; ++q) {
            const std::int64_t at = static_cast<std::int64_t>(q) * w.channels;
            for (int t = w.first_tap(q); t < w.last_tap(q, w.width); ++t) {
                float* const to = line + static_cast<std::int64_t>(w.source(q, t)) * w.channels;
                for (int c = 0; c < w.channels; c += kLanes) {
                    const int rest = min(kLanes, w.channels - c);
                    const Vec dz = rest == kLanes ? load(from.dz[s] + at + c)
                                                  : load_tail(from.dz[s] + at + c, rest);
                    store(to + c, add_where(from.taps[s] + at + c, from.first_tap[s] + t, dz,
                                            load(to + c)));
                }
            }
        }
    }
}

void max_row(const Gather& g, int row, float* dx) {
    const Window& w = g.args->window;
    const std::int64_t n = static_cast<std::int64_t>(w.width) * w.channels;
    const Sources from = sources_of(g, row);
    const bool is_added = g.args->accumulate;
    if (w.stride > 1) {
        for (std::int64_t i = 0; i < n; i += kLanes) {
            store(g.line + i, zero());
        }
        scatter_max(w, from, g.line);
        put_row(g.line, n, 1.0f, is_added, dx);
    } else if (w.kernel == 3) {
        is_added ? gather_max<3, true>(w, from, n, dx) : gather_max<3, false>(w, from, n, dx);
    } else {
        is_added ? gather_max<0, true>(w, from, n, dx) : gather_max<0, false>(w, from, n, dx);
    }
}

// -- average ----------------------------------------------------------------------------------

void scale_run(float* values, std::int64_t begin, std::int64_t end, float factor) {
    for (std::int64_t i = begin; i < end; ++i) {
        values[i] *= factor;
    }
}

// A row of dz, added along the width into the ring, not yet divided by kernel * kernel.
void take_average_row(const Gather& g, std::int64_t image, int p) {
    const Window& w = g.args->window;
    const std::int64_t n = static_cast<std::int64_t>(w.out_width) * w.channels;
    float* const dz = g.dz + g.pad;
    upstream_run(g.args->up, g.mode, (image * w.out_height + p) * n, n, g.table, g.vectors, dz);
    const int rows = w.last_tap(p, w.height) - w.first_tap(p);
    if (rows < w.kernel) {
        scale_run(dz, 0, n, static_cast<float>(w.kernel) / static_cast<float>(rows));
    }
    const int full_end = w.full_end(w.width, w.out_width);
    for (int q = 0; q < w.out_width; q = q + 1 == w.full_begin(w.out_width) ? full_end : q + 1) {
        const int columns = w.last_tap(q, w.width) - w.first_tap(q);
        scale_run(dz, static_cast<std::int64_t>(q) * w.channels,
                  static_cast<std::int64_t>(q + 1) * w.channels,
                  static_cast<float>(w.kernel) / static_cast<float>(columns));
    }
    float* const sums = g.sum_row(p);
    const std::int64_t wide = static_cast<std::int64_t>(w.width) * w.channels;
    if (w.stride == 1) {
        for (std::int64_t i = 0; i < wide; i += kLanes) {
            Vec sum = load(dz + i + shift_of(w, 0));
            for (int t = 1; t < w.kernel; ++t) {
                sum += load(dz + i + shift_of(w, t));
            }
            store(sums + i, sum);
        }
        return;
    }
    for (std::int64_t i = 0; i < wide; i += kLanes) {
        store(sums + i, zero());
    }
    for (int q = 0; q < w.out_width; ++q) {
        const float* const from = dz + static_cast<std::int64_t>(q) * w.channels;
        for (int t = w.first_tap(q); t < w.last_tap(q, w.width); ++t) {
            float* const to = sums + static_cast<std::int64_t>(w.source(q, t)) * w.channels;
            for (int c = 0; c < w.channels; c += kLanes) {
                const int rest = min(kLanes, w.channels - c);
                const Vec value = rest == kLanes ? load(from + c) : load_tail(from + c, rest);
                store(to + c, load(to + c) + value);
            }
        }
    }
}

template <bool kAdd>
void add_rows(const float* const* rows, int count, std::int64_t n, float factor, float* dx) {
    for (std::int64_t i = 0; i < n; i += kLanes) {
        const int rest = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
        Vec sum = load(rows[0] + i);
        for (int r = 1; r < count; ++r) {
            sum += load(rows[r] + i);
        }
        sum *= factor;
        if (kAdd) {
            sum += rest == kLanes ? load(dx + i) : load_tail(dx + i, rest);
        }
        if (rest == kLanes) {
            store(dx + i, sum);
        } else {
            store_tail(dx + i, sum, rest);
        }
    }
}

void average_row(const Gather& g, int row, float* dx) {
    const Window& w = g.args->window;
    const std::int64_t n = static_cast<std::int64_t>(w.width) * w.channels;
    const float factor = 1.0f / static_cast<float>(w.kernel * w.kernel);
    const float* rows[kMostPoolTaps];
    int count = 0;
    for (int t = w.kernel - 1; t >= 0; --t) {
        const int p = row_above(w, row, t);
        if (p >= 0) {
            rows[count++] = g.sum_row(p);
        }
    }
    if (count > 0) {
        g.args->accumulate ? add_rows<true>(rows, count, n, factor, dx)
                           : add_rows<false>(rows, count, n, factor, dx);
    } else if (!g.args->accumulate) {
        for (std::int64_t i = 0; i < n; ++i) {
            dx[i] = 0.0f;
        }
    }
}

// -- both -------------------------------------------------------------------------------------

template <bool kMax>
void backward_image(const Gather& g, std::int64_t image) {
    const Window& w = g.args->window;
    const std::int64_t row_floats = static_cast<std::int64_t>(w.width) * w.channels;
    float* const dx = g.args->dx + image * w.height * row_floats;
    int next = 0;  // row of dz that comes into the ring next
    for (int row = 0; row < w.height; ++row) {
        const int last = min((row + w.padding()) / w.stride, w.out_height - 1);
        for (; next <= last; ++next) {
            if (kMax) {
                take_max_row(g, image, next);
            } else {
                take_average_row(g, image, next);
            }
        }
        if (kMax) {
            max_row(g, row, dx + row * row_floats);
        } else {
            average_row(g, row, dx + row * row_floats);
        }
    }
}

// Fills the padding, which no row writes.
template <bool kMax>
void clear_padding(const Gather& g, const Window& w) {
    const int rows = kMax ? g.rows : 1;
    const std::int64_t n = static_cast<std::int64_t>(w.out_width) * w.channels;
    for (int r = 0; r < rows; ++r) {
        for (std::int64_t i = 0; i < g.step; ++i) {
            if (i < g.pad || i >= g.pad + n) {
                g.dz[r * g.step + i] = 0.0f;
                if (kMax) {
                    g.taps[r * g.step + i] = kNoTap;
                }
            }
        }
    }
}

template <bool kMax>
void pool_backward(const PoolBackwardArgs& a) {
    const Window& w = a.window;
    const int slices = slices_for(w.images, a.threads);
    const int rows = ring_rows(w);
    const std::int64_t step = row_step(w);
    const int vectors = period_vectors(w.channels, 1);
    const std::int64_t ring = (rows + 2) * step + rows * step;  // a byte would do for the taps
    const std::int64_t own = aligned_floats(ring);
    const std::int64_t table_floats = aligned_floats(upstream_table_floats(vectors));
    const Block block(table_floats + slices * own);
    fill_upstream(a.up, w.channels, vectors, block.get());
#pragma omp parallel for schedule(static) num_threads(slices)
    for (int s = 0; s < slices; ++s) {
        float* const memory = block.get() + table_floats + s * own;
        Gather g{&a, upstream_mode(a.up), block.get(), vectors, rows, row_pad(w), step,
                 nullptr, nullptr, nullptr, memory};
        g.dz = memory + step;
        g.sums = g.dz + step;
        g.taps = reinterpret_cast<std::uint8_t*>(g.dz + rows * step);
        clear_padding<kMax>(g, w);
        const std::int64_t last = slice_begin(w.images, slices, s + 1);
        for (std::int64_t image = slice_begin(w.images, slices, s); image < last; ++image) {
            backward_image<kMax>(g, image);
        }
    }
}

}  // namespace

void max_pool_backward(const PoolBackwardArgs& a) {
    pool_backward<true>(a);
}

void average_pool_backward(const PoolBackwardArgs& a) {
    pool_backward<false>(a);
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
