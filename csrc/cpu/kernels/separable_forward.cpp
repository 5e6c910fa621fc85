#include "cpu/kernels/separable_rows.h"

namespace hwnas {
namespace HWNAS_ISA {
namespace {

// Sums of z - shift and its square for each output channel: of a band in single precision, of what
// came before in double. The shift is near the mean, so that little cancels.
struct Moments {
    float* shift;
    float* sum;     // of the band
    float* square;  // of the band
    double* total;
    double* total_square;
    std::int64_t count;
};

// Writes tiles of z and adds them to the moments.
struct StoreCounted {
    StoreRows rows;
    Moments* moments;

    template <int M, int N>
    inline __attribute__((always_inline)) void take(Vec (&acc)[M][N], int pixel, int vector) {
        rows.put<M, N>(acc, pixel, vector);
        for (int n = 0; n < N; ++n) {
            const int at = (vector + n) * kLanes;
            const Vec shift = load(moments->shift + at);
            Vec sum = zero();
            Vec square = zero();
            for (int m = 0; m < M; ++m) {
                const Vec centred = acc[m][n] - shift;
                sum += centred;
                square += centred * centred;
            }
            store(moments->sum + at, load(moments->sum + at) + sum);
            store(moments->square + at, load(moments->square + at) + square);
        }
    }
};

// What the threads share, and what each of them has to itself.
struct Shared {
    Layout at;
    float* input;    // norm of x
    float* weights;  // depthwise
    float* panels;   // pointwise
};

struct Own {
    float* rows;     // ring
    float* zeros;
    float* middle;   // a band behind the depthwise convolution
    Moments moments;
};

Shared carve_shared(const Layout& at, Carver& carver) {
    Shared shared{at, nullptr, nullptr, nullptr};
    shared.input = carver.take((std::int64_t)kInputParts * at.period);
    shared.weights = carver.take((std::int64_t)at.shape.kernel * at.shape.kernel * at.period);
    shared.panels = carver.take(packed_size(at.shape.channels, at.shape.outputs));
    return shared;
}

Own carve_own(const Layout& at, Carver& carver) {
    const int outputs = round_up(at.shape.outputs, kLanes);
    Own own{};
    own.rows = carver.take((std::int64_t)at.ring * at.row);
    own.zeros = carver.take(at.row);
    own.middle = carver.take((std::int64_t)at.band * at.count);
    own.moments.shift = carver.take(outputs);
    own.moments.sum = carver.take(outputs);
    own.moments.square = carver.take(outputs);
    own.moments.total = reinterpret_cast<double*>(carver.take(2 * outputs));
    own.moments.total_square = reinterpret_cast<double*>(carver.take(2 * outputs));
    return own;
}

// Adds the band to the totals.
void fold(Moments& moments, int outputs, std::int64_t pixels) {
    for (int d = 0; d < outputs; ++d) {
        moments.total[d] += static_cast<double>(moments.sum[d]);
        moments.total_square[d] += static_cast<double>(moments.square[d]);
    }
    moments.count += pixels;
    const int padded = round_up(outputs, kLanes);
    clear(moments.sum, padded);
    clear(moments.square, padded);
}

// Makes the mean so far the shift.
void shift_to_mean(Moments& moments, int outputs) {
    const double count = static_cast<double>(moments.count);
    for (int d = 0; d < outputs; ++d) {
        const double old = static_cast<double>(moments.shift[d]);
        moments.shift[d] = static_cast<float>(old + moments.total[d] / count);
        const double back = old - static_cast<double>(moments.shift[d]);
        moments.total_square[d] += back * (2.0 * moments.total[d] + count * back);
        moments.total[d] += count * back;
    }
}

// The first shift: z of one pixel.
void shift_to_pixel(const Shared& shared, Moments& moments, const float* middle) {
    const SeparableShape& shape = shared.at.shape;
    StoreRows sink{moments.shift, 0, shape.outputs};
    multiply_panels(middle, shared.at.channels, 1, shared.panels, shape.channels, shape.outputs,
                    sink);
}

template <class Sink>
void multiply_band(const Shared& shared, const Own& own, int rows, Sink& sink, StoreRows& target) {
    const Layout& at = shared.at;
    const SeparableShape& shape = at.shape;
    if (at.count == at.columns * at.channels) {
        return multiply_panels(own.middle, at.channels, rows * at.columns, shared.panels,
                               shape.channels, shape.outputs, sink);
    }
    for (int r = 0; r < rows; ++r) {
        multiply_panels(own.middle + (long)r * at.count, at.channels, at.columns, shared.panels,
                        shape.channels, shape.outputs, sink);
        target.to += (long)at.columns * shape.outputs;
    }
}

void run_band(const SeparableArgs& args, const Shared& shared, Own& own, int rows, float* z) {
    const SeparableShape& shape = shared.at.shape;
    const StoreRows target{z, shape.outputs, shape.outputs};
    if (args.statistics == nullptr) {
        StoreRows sink = target;
        return multiply_band(shared, own, rows, sink, sink);
    }
    if (own.moments.count == 0) {
        shift_to_pixel(shared, own.moments, own.middle);
    }
    StoreCounted sink{target, &own.moments};
    multiply_band(shared, own, rows, sink, sink.rows);
    fold(own.moments, shape.outputs, (std::int64_t)rows * shared.at.columns);
}

void run_image(const SeparableArgs& args, const Shared& shared, Own& own, std::int64_t n) {
    const Layout& at = shared.at;
    const SeparableShape& shape = at.shape;
    const float* const x = args.x + n * shape.height * shape.width * shape.channels;
    float* z = args.z + n * at.rows * at.columns * shape.outputs;
    Ring ring{own.rows, own.zeros, at.ring, at.row, 0, shape.height};
    for (int first = 0; first < at.rows; first += at.band) {
        const int end = min(first + at.band, at.rows);
        fill_until(at, x, args.norm, shared.input,
                   (end - 1) * shape.stride + at.padding + 1, ring);
        convolve_band(at, ring, first, end, shared.weights, own.middle, at.count);
        run_band(args, shared, own, end - first, z);
        z += (std::int64_t)(end - first) * at.columns * shape.outputs;
        if (args.statistics != nullptr && first == 0) {
            shift_to_mean(own.moments, shape.outputs);
        }
    }
}

void run_images(const SeparableArgs& args, const Shared& shared, Own& own, int thread) {
    const Layout& at = shared.at;
    clear(own.rows, (std::int64_t)at.ring * at.row);
    clear(own.zeros, at.row);
    Moments& moments = own.moments;
    const int outputs = round_up(at.shape.outputs, kLanes);
    clear(moments.shift, outputs);
    clear(moments.sum, outputs);
    clear(moments.square, outputs);
    for (int d = 0; d < outputs; ++d) {
        moments.total[d] = 0.0;
        moments.total_square[d] = 0.0;
    }
    const std::int64_t end = slice_begin(at.shape.batch, args.threads, thread + 1);
    for (std::int64_t n = slice_begin(at.shape.batch, args.threads, thread); n < end; ++n) {
        run_image(args, shared, own, n);
    }
}

// Joins the threads' moments, in their order (Chan's formula).
void join(const SeparableArgs& args, const Own* owns) {
    const int outputs = args.shape.outputs;
    for (int d = 0; d < outputs; ++d) {
        double count = 0.0;
        double mean = 0.0;
        double squares = 0.0;
        for (int t = 0; t < args.threads; ++t) {
            const Moments& each = owns[t].moments;
            if (each.count == 0) {
                continue;
            }
            const double own_count = static_cast<double>(each.count);
            const double offset = each.total[d] / own_count;
            const double away = static_cast<double>(each.shift[d]) + offset - mean;
            squares += each.total_square[d] - each.total[d] * offset +
                       away * away * count * own_count / (count + own_count);
            mean += away * own_count / (count + own_count);
            count += own_count;
        }
        args.statistics[d] = static_cast<float>(mean);
        args.statistics[outputs + d] = static_cast<float>(count > 0.0 ? squares / count : 0.0);
    }
}

}  // namespace

void separable_forward(const SeparableArgs& args) {
    const Layout at = layout_of(args.shape);
    Carver measure;
    carve_shared(at, measure);
    const std::int64_t shared_floats = measure.used;
    carve_own(at, measure);
    const std::int64_t own_floats = measure.used - shared_floats;
    // Behind the buffers: one Own for each thread.
    const std::int64_t records = (static_cast<std::int64_t>(sizeof(Own)) + 3) / 4 * args.threads;
    const Block block(shared_floats + own_floats * args.threads + records);

    Carver carver{block.get(), 0};
    const Shared shared = carve_shared(at, carver);
    Own* const owns =
        reinterpret_cast<Own*>(block.get() + shared_floats + own_floats * args.threads);
    for (int t = 0; t < args.threads; ++t) {
        owns[t] = carve_own(at, carver);
    }
    fill_input_norm(args.norm, at, shared.input);
    fill_depthwise(at, args.depthwise, false, shared.weights);
    pack_panels(shared.panels, args.pointwise, 1, args.shape.channels, args.shape.channels,
                args.shape.outputs, args.shape.outputs);
#pragma omp parallel for num_threads(args.threads) schedule(static, 1)
    for (int t = 0; t < args.threads; ++t) {
        run_images(args, shared, owns[t], t);
    }
    if (args.statistics != nullptr) {
        join(args, owns);
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
