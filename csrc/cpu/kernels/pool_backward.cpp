// Backward. Rows of dz are flat memory in L1 with padding on both sides. Maximum: a row of dz at a
// time is added to the rows of dx under its windows; between and beside its pixels there is no tap
// in the index. Average: each row of dx is gathered from a ring of rows.
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
    float* dz;           // [step]
    float* line;         // maximum: a row of dz before its pixels are set apart
    std::uint8_t* taps;  // maximum: [step]
    float* sums;         // average: [rows, step], dz added along the width

    float* sum_row(int row) const { return sums + row % rows * step + pad; }
};

int ring_rows(const Window& w) {
    return (w.reach() - 1) / w.stride + 1;
}

std::int64_t row_pad(const Window& w) {
    return round_up(w.padding() * w.channels, kLanes);
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

void clear_row(float* dx, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
        dx[i] = 0.0f;
    }
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

// A row of dz and of the index, its pixels as far apart as their windows: then every stride is the
// case of stride 1.
void take_max_row(const Gather& g, std::int64_t image, int p) {
    const Window& w = g.args->window;
    const std::int64_t n = static_cast<std::int64_t>(w.out_width) * w.channels;
    const std::int64_t at = (image * w.out_height + p) * n;
    float* const dz = g.dz + g.pad;
    std::uint8_t* const taps = g.taps + g.pad;
    const std::uint8_t* const index = g.args->index + at;
    if (w.stride == 1) {
        upstream_run(g.args->up, g.mode, at, n, g.table, g.vectors, dz);
        __builtin_memcpy(taps, index, static_cast<std::size_t>(n));
        return;
    }
    upstream_run(g.args->up, g.mode, at, n, g.table, g.vectors, g.line);
    for (int q = 0; q < w.out_width; ++q) {
        const std::int64_t from = static_cast<std::int64_t>(q) * w.channels;
        const std::int64_t to = from * w.stride;
        put_row(g.line + from, w.channels, 1.0f, false, dz + to);
        __builtin_memcpy(taps + to, index + from, static_cast<std::size_t>(w.channels));
    }
}

HWNAS_INLINE Vec load_up_to(const float* p, int n) {
    return n == kLanes ? load(p) : load_tail(p, n);
}

HWNAS_INLINE void store_up_to(float* p, Vec v, int n) {
    if (n == kLanes) {
        store(p, v);
    } else {
        store_tail(p, v, n);
    }
}

// Adds what one row of dz brings to `kRows` neighbouring rows of dx, those under the taps from
// `first_tap` on: each value asks all windows around it whether it was their maximum.
template <int kRows, int kTaps>
void add_maxima(const Gather& g, int first_tap, std::int64_t n, float* const (&dx)[kRows]) {
    const Window& w = g.args->window;
    const int taps = kTaps > 0 ? kTaps : w.kernel;
    for (std::int64_t i = 0; i < n; i += kLanes) {
        const int rest = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
        Vec sums[kRows];
        for (int r = 0; r < kRows; ++r) {
            sums[r] = load_up_to(dx[r] + i, rest);
        }
        for (int t = 0; t < taps; ++t) {
            const std::int64_t at = g.pad + i + shift_of(w, t);
            const Vec dz = load(g.dz + at);
            for (int r = 0; r < kRows; ++r) {
                sums[r] = add_where(g.taps + at, first_tap + r * taps + t, dz, sums[r]);
            }
        }
        for (int r = 0; r < kRows; ++r) {
            store_up_to(dx[r] + i, sums[r], rest);
        }
    }
}

void max_image(const Gather& g, std::int64_t image) {
    const Window& w = g.args->window;
    const std::int64_t n = static_cast<std::int64_t>(w.width) * w.channels;
    float* const dx = g.args->dx + image * w.height * n;
    int reached = g.args->accumulate ? w.height : 0;  // rows of dx that hold something
    for (int p = 0; p < w.out_height; ++p) {
        take_max_row(g, image, p);
        const int first = w.first_tap(p);
        const int last = w.last_tap(p, w.height);
        for (; reached <= w.source(p, last - 1); ++reached) {
            clear_row(dx + reached * n, n);
        }
        if (w.dilation == 1 && last - first == w.kernel && (w.kernel == 3 || w.kernel == 5)) {
            float* const row = dx + w.source(p, 0) * n;
            if (w.kernel == 3) {
                add_maxima<3, 3>(g, 0, n, {row, row + n, row + 2 * n});
            } else {
                add_maxima<5, 5>(g, 0, n, {row, row + n, row + 2 * n, row + 3 * n, row + 4 * n});
            }
            continue;
        }
        for (int t = first; t < last; ++t) {
            add_maxima<1, 0>(g, t * w.kernel, n, {dx + w.source(p, t) * n});
        }
    }
    for (; reached < w.height; ++reached) {
        clear_row(dx + reached * n, n);
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
        clear_row(dx, n);
    }
}

// -- both -------------------------------------------------------------------------------------

void average_image(const Gather& g, std::int64_t image) {
    const Window& w = g.args->window;
    const std::int64_t row_floats = static_cast<std::int64_t>(w.width) * w.channels;
    float* const dx = g.args->dx + image * w.height * row_floats;
    int next = 0;  // row of dz that comes into the ring next
    for (int row = 0; row < w.height; ++row) {
        const int last = min((row + w.padding()) / w.stride, w.out_height - 1);
        for (; next <= last; ++next) {
            take_average_row(g, image, next);
        }
        average_row(g, row, dx + row * row_floats);
    }
}

// Fills what no row writes: all but the pixels.
void clear_padding(const Gather& g, bool is_max) {
    clear_row(g.dz, g.step);
    for (std::int64_t i = 0; is_max && i < g.step; ++i) {
        g.taps[i] = kNoTap;
    }
}

template <bool kMax>
void pool_backward(const PoolBackwardArgs& a) {
    const Window& w = a.window;
    const int slices = slices_for(w.images, a.threads);
    const int rows = ring_rows(w);
    const std::int64_t step = row_step(w);
    const int vectors = period_vectors(w.channels, 1);
    const std::int64_t own = aligned_floats((kMax ? 3 : 1 + rows) * step);
    const std::int64_t table_floats = aligned_floats(upstream_table_floats(vectors));
    const Block block(table_floats + slices * own);
    fill_upstream(a.up, w.channels, vectors, block.get());
#pragma omp parallel for schedule(static) num_threads(slices)
    for (int s = 0; s < slices; ++s) {
        float* const dz = block.get() + table_floats + s * own;
        float* const behind = dz + step;
        const Gather g{&a, upstream_mode(a.up), block.get(), vectors, rows, row_pad(w), step, dz,
                       behind, reinterpret_cast<std::uint8_t*>(behind + step), behind};
        clear_padding(g, kMax);
        const std::int64_t last = slice_begin(w.images, slices, s + 1);
        for (std::int64_t image = slice_begin(w.images, slices, s); image < last; ++image) {
            kMax ? max_image(g, image) : average_image(g, image);
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
