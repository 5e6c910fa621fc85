#include "cpu/kernels/separable_memory.h"

namespace hwnas {
namespace HWNAS_ISA {
namespace {

// -- dt and the gradients of the weights ------------------------------------------------------

HWNAS_INLINE float* dt_of(const Shared& shared, const Ring& dt, int p) {
    return dt.slot(p) + (long)shared.dt_padding * shared.at.channels;
}

void back_through_pointwise(const Shared& shared, const Own& own, int first, int end, Ring& dt) {
    const Layout& at = shared.at;
    const int outputs = at.shape.outputs;
    const float* dz = own.dz;
    for (int p = first; p < end; ++p, dz += (long)at.columns * outputs) {
        StoreRows sink{dt_of(shared, dt, p), at.channels, at.channels};
        multiply_panels(dz, outputs, at.columns, shared.panels, outputs, at.channels, sink);
    }
    dt.filled = end;
}

void add_pointwise_gradient(const Shared& shared, const Own& own, int rows) {
    const Layout& at = shared.at;
    const int outputs = at.shape.outputs;
    const bool is_dense = at.count == at.columns * at.channels;
    const int pixels = is_dense ? rows * at.columns : at.columns;
    const float* dz = own.dz;
    const float* middle = own.middle;
    for (int r = 0; r < (is_dense ? 1 : rows); ++r) {
        add_outer(dz, outputs, outputs, middle, at.channels, at.channels, pixels, own.d_pointwise,
                  shared.gradient_row);
        dz += (long)pixels * outputs;
        middle += at.count;
    }
}

template <int K>
void add_depthwise_gradient_as(const Shared& shared, const Own& own, const Ring& ring,
                               const Ring& dt, int first, int end) {
    const Layout& at = shared.at;
    const SeparableShape& shape = at.shape;
    const bool shares = shape.stride == 1 && shape.dilation == 1;
    for (int p = first; p < end;) {
        const int together = !shares ? 1 : end - p >= 4 ? 4 : end - p >= 2 ? 2 : 1;
        const float* rows[K + 3];
        for (int i = 0; i < K + together - 1; ++i) {
            rows[i] = ring.read(p * shape.stride + i * shape.dilation - at.padding);
        }
        const float* from[4];
        for (int r = 0; r < together; ++r) {
            from[r] = dt_of(shared, dt, p + r);
        }
        if (together == 4) {
            correlate_rows<K, 4>(rows, at.taps, from, at.period, at.count, own.d_depthwise);
        } else if (together == 2) {
            correlate_rows<K, 2>(rows, at.taps, from, at.period, at.count, own.d_depthwise);
        } else {
            correlate_rows<K, 1>(rows, at.taps, from, at.period, at.count, own.d_depthwise);
        }
        p += together;
    }
}

void add_depthwise_gradient(const Shared& shared, const Own& own, const Ring& ring, const Ring& dt,
                            int first, int end) {
    const Layout& at = shared.at;
    const SeparableShape& shape = at.shape;
    switch (shape.kernel) {
        case 3:
            return add_depthwise_gradient_as<3>(shared, own, ring, dt, first, end);
        case 5:
            return add_depthwise_gradient_as<5>(shared, own, ring, dt, first, end);
        case 7:
            return add_depthwise_gradient_as<7>(shared, own, ring, dt, first, end);
        default:
            break;
    }
    for (int p = first; p < end; ++p) {
        float* gradient = own.d_depthwise;
        for (int i = 0; i < shape.kernel; ++i) {
            const float* row = ring.read(p * shape.stride + i * shape.dilation - at.padding);
            for (int j = 0; j < shape.kernel; ++j, gradient += at.period) {
                correlate_tap(row + at.taps[j], dt_of(shared, dt, p), at.period, at.count,
                              gradient);
            }
        }
    }
}

// -- du ---------------------------------------------------------------------------------------

// One row in front of a depthwise convolution with a stride: sub-row after sub-row.
void back_through_strided(const Shared& shared, const Ring& dt, int h, float* du) {
    const Layout& at = shared.at;
    const SeparableShape& shape = at.shape;
    const int count = round_up(at.places * at.channels, kLanes);
    for (int sub = 0; sub < shape.stride; ++sub) {
        const float* from[kLargestKernel * kLargestKernel];
        const float* with[kLargestKernel * kLargestKernel];
        int taps = 0;
        for (int i = 0; i < shape.kernel; ++i) {
            const int row = h + at.padding - i * shape.dilation;
            if (row < 0 || row % shape.stride != 0 || row / shape.stride >= at.rows) {
                continue;
            }
            const float* const middle = dt_of(shared, dt, row / shape.stride);
            for (int j = 0; j < shape.kernel; ++j) {
                const int column = j * shape.dilation;
                if (column % shape.stride == sub) {
                    from[taps] = middle - (long)(column / shape.stride) * at.channels;
                    with[taps++] = shared.weights + (long)(i * shape.kernel + j) * at.period;
                }
            }
        }
        convolve_taps(taps, from, with, at.period, count, du + (long)sub * at.sub_row);
    }
}

// Masks du by the ReLU, gives it to dx, and adds it to the sums.
template <bool kNorm, bool kAccumulate>
void finish_run(const float* du, const float* u, const float* x, const float* mean, int floats,
                int period, float* dx, float* sums) {
    for (int phase = 0; phase < min(period, floats); phase += kLanes) {
        Vec sum = zero();
        Vec product = zero();
        const Vec centre = kNorm ? load(mean + phase) : zero();
        int f = phase;
        for (; f + kLanes <= floats; f += period) {
            Vec g = load(u + f) <= 0.0f ? Vec{} : load(du + f);
            if (kNorm) {
                sum += g;
                product += g * (load(x + f) - centre);
            }
            store(dx + f, kAccumulate ? load(dx + f) + g : g);
        }
        if (f < floats) {
            const int rest = floats - f;
            Vec g = load_tail(u + f, rest) <= 0.0f ? Vec{} : load_tail(du + f, rest);
            if (kNorm) {
                sum += g;
                product += g * (load_tail(x + f, rest) - centre);
            }
            store_tail(dx + f, kAccumulate ? load_tail(dx + f, rest) + g : g, rest);
        }
        if (kNorm) {
            store(sums + phase, load(sums + phase) + sum);
            store(sums + period + phase, load(sums + period + phase) + product);
        }
    }
}

template <bool kNorm, bool kAccumulate>
void finish_row(const Shared& shared, const Own& own, const float* du, const float* u,
                const float* x, float* dx) {
    const Layout& at = shared.at;
    const SeparableShape& shape = at.shape;
    if (at.is_flat) {
        return finish_run<kNorm, kAccumulate>(du, u + place_of(at, 0), x, shared.input,
                                              shape.width * shape.channels, at.period, dx,
                                              own.sums);
    }
    for (int w = 0; w < shape.width; ++w) {
        const long place = place_of(at, w);
        const long from = shape.stride == 1 ? (long)w * at.channels : place;
        finish_run<kNorm, kAccumulate>(du + from, u + place, x, shared.input, shape.channels,
                                       at.period, dx, own.sums);
        x += shape.channels;
        dx += shape.channels;
    }
}

void finish_rows(const SeparableBackwardArgs& args, const Shared& shared, const Own& own,
                 const Ring& ring, const Ring& dt, std::int64_t n, int first, int end) {
    const Layout& at = shared.at;
    const SeparableShape& shape = at.shape;
    const std::int64_t step = (std::int64_t)shape.width * shape.channels;
    const int du_row = max(at.row, at.count);
    for (int h = first; h < end; h += kTogether) {
        const int together = min(kTogether, end - h);
        if (shape.stride == 1) {
            convolve_band(at, dt, h, h + together, shared.flipped, own.du, du_row);
        } else {
            for (int r = 0; r < together; ++r) {
                back_through_strided(shared, dt, h + r, own.du + r * du_row);
            }
        }
        for (int r = 0; r < together; ++r) {
            const std::int64_t offset = (n * shape.height + h + r) * step;
            const float* const du = own.du + r * du_row;
            const float* const u = ring.slot(h + r);
            const float* const x = args.x + offset;
            float* const dx = args.dx + offset;
            if (args.norm.is_none()) {
                args.accumulate ? finish_row<false, true>(shared, own, du, u, x, dx)
                                : finish_row<false, false>(shared, own, du, u, x, dx);
            } else {
                args.accumulate ? finish_row<true, true>(shared, own, du, u, x, dx)
                                : finish_row<true, false>(shared, own, du, u, x, dx);
            }
        }
    }
}

// -- the pass ---------------------------------------------------------------------------------

// Pixels whose sums one float may hold: more would cost digits, fewer time.
constexpr int kFoldPixels = 512;

void fold_sums(const Shared& shared, Own& own) {
    const Layout& at = shared.at;
    const int channels = at.shape.channels;
    for (int i = 0; i < at.period; i += at.channels) {
        for (int c = 0; c < channels; ++c) {
            own.totals[c] += static_cast<double>(own.sums[i + c]);
            own.totals[channels + c] += static_cast<double>(own.sums[at.period + i + c]);
        }
    }
    clear(own.sums, 2 * at.period);
}

void run_image(const SeparableBackwardArgs& args, const Shared& shared, Own& own, std::int64_t n) {
    const Layout& at = shared.at;
    const SeparableShape& shape = at.shape;
    const float* const x = args.x + n * shape.height * shape.width * shape.channels;
    Ring ring{own.rows, own.zeros, at.ring, at.row, 0, shape.height};
    Ring dt{own.dt_rows, own.zeros, shared.dt_rows, shared.dt_row, 0, at.rows};
    int finished = 0;
    int folded = 0;
    for (int first = 0; first < at.rows; first += at.band) {
        const int end = min(first + at.band, at.rows);
        // Rows of x whose gradients are complete with this band.
        const int ready = end == at.rows ? shape.height
                                         : max(min(end * shape.stride - at.padding, shape.height),
                                               finished);
        const int needed = (end - 1) * shape.stride + at.padding + 1;
        fill_until(at, x, args.norm, shared.input, max(needed, ready), ring);
        const std::int64_t row = (std::int64_t)at.columns * shape.outputs;
        upstream_run(args.up, shared.mode, (n * at.rows + first) * row, (end - first) * row,
                     shared.up, shared.up_vectors, own.dz);
        back_through_pointwise(shared, own, first, end, dt);
        convolve_band(at, ring, first, end, shared.weights, own.middle, at.count);
        add_pointwise_gradient(shared, own, end - first);
        add_depthwise_gradient(shared, own, ring, dt, first, end);
        finish_rows(args, shared, own, ring, dt, n, finished, ready);
        finished = ready;
        if (!args.norm.is_none() &&
            (end == at.rows || (finished - folded) * shape.width >= kFoldPixels)) {
            fold_sums(shared, own);
            folded = finished;
        }
    }
}

// Sums what the threads have, in their order.
void join(const SeparableBackwardArgs& args, const Shared& shared, const Own* owns) {
    const Layout& at = shared.at;
    const SeparableShape& shape = at.shape;
    const int taps = shape.kernel * shape.kernel;
    for (int c = 0; c < shape.channels; ++c) {
        for (int tap = 0; tap < taps; ++tap) {
            float total = 0.0f;
            for (int t = 0; t < args.threads; ++t) {
                for (int f = c; f < at.period; f += at.channels) {
                    total += owns[t].d_depthwise[tap * at.period + f];
                }
            }
            args.d_depthwise[(long)c * taps + tap] = total;
        }
    }
    for (int d = 0; d < shape.outputs; ++d) {
        for (int c = 0; c < shape.channels; ++c) {
            float total = 0.0f;
            for (int t = 0; t < args.threads; ++t) {
                total += owns[t].d_pointwise[(long)d * shared.gradient_row + c];
            }
            args.d_pointwise[(long)d * shape.channels + c] = total;
        }
    }
    for (int c = 0; !args.norm.is_none() && c < shape.channels; ++c) {
        double sum = 0.0;
        double product = 0.0;
        for (int t = 0; t < args.threads; ++t) {
            sum += owns[t].totals[c];
            product += owns[t].totals[shape.channels + c];
        }
        const float inverse = affine_of(args.norm, c).inverse;
        args.sums[c] = static_cast<float>(sum);
        args.sums[shape.channels + c] = static_cast<float>(product * static_cast<double>(inverse));
    }
}

}  // namespace

void separable_backward(const SeparableBackwardArgs& args) {
    Shared shared = shared_of(args);
    Carver measure;
    carve_shared(shared, measure);
    const std::int64_t shared_floats = measure.used;
    carve_own(shared, measure);
    const std::int64_t own_floats = measure.used - shared_floats;
    const std::int64_t records = (static_cast<std::int64_t>(sizeof(Own)) + 3) / 4 * args.threads;
    const Block block(shared_floats + own_floats * args.threads + records);

    Carver carver{block.get(), 0};
    carve_shared(shared, carver);
    Own* const owns =
        reinterpret_cast<Own*>(block.get() + shared_floats + own_floats * args.threads);
    for (int t = 0; t < args.threads; ++t) {
        owns[t] = carve_own(shared, carver);
    }
    fill_input_norm(args.norm, shared.at, shared.input);
    fill_upstream(args.up, args.shape.outputs, shared.up_vectors, shared.up);
    fill_depthwise(shared.at, args.depthwise, false, shared.weights);
    fill_depthwise(shared.at, args.depthwise, true, shared.flipped);
    pack_panels(shared.panels, args.pointwise, args.shape.channels, 1, args.shape.outputs,
                args.shape.channels, shared.at.channels);
#pragma omp parallel for num_threads(args.threads) schedule(static, 1)
    for (int t = 0; t < args.threads; ++t) {
        clear_own(shared, owns[t]);
        const std::int64_t end = slice_begin(args.shape.batch, args.threads, t + 1);
        for (std::int64_t n = slice_begin(args.shape.batch, args.threads, t); n < end; ++n) {
            run_image(args, shared, owns[t], n);
        }
    }
    join(args, shared, owns);
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
