// How an image tensor is cut into tiles of pixels, and the loads that are common to the separable
// stage's kernels.
#pragma once

#include <algorithm>
#include <stdexcept>

#include "cuda/norm.cuh"

namespace hwnas_cuda {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// Powers of two: pixel m of a tile lies in image m >> (row_bits + column_bits) of it, and so on.
// The halo is the part of the other side (input of an output tile, or the reverse) that it needs.
struct Tiling {
    int image_bits, row_bits, column_bits;
    int halo_rows, halo_columns;
    int tiles_down, tiles_across;
    std::int64_t tiles;

    __host__ __device__ int images() const { return 1 << image_bits; }
    __host__ __device__ int rows() const { return 1 << row_bits; }
    __host__ __device__ int columns() const { return 1 << column_bits; }
    __host__ __device__ int pixels() const { return 1 << (image_bits + row_bits + column_bits); }
    __host__ __device__ int halo() const { return halo_rows * halo_columns << image_bits; }
};

struct Place {
    std::int64_t image;
    int row, column;
};

__device__ __forceinline__ Place corner(const Tiling& tiling, std::int64_t tile) {
    const int across = static_cast<int>(tile % tiling.tiles_across);
    const std::int64_t rest = tile / tiling.tiles_across;
    const int down = static_cast<int>(rest % tiling.tiles_down);
    return {(rest / tiling.tiles_down) << tiling.image_bits, down << tiling.row_bits,
            across << tiling.column_bits};
}

__device__ __forceinline__ Place pixel_at(const Tiling& tiling, const Place& corner, int m) {
    return {corner.image + (m >> (tiling.row_bits + tiling.column_bits)),
            corner.row + ((m >> tiling.column_bits) & (tiling.rows() - 1)),
            corner.column + (m & (tiling.columns() - 1))};
}

__device__ __forceinline__ bool is_inside(const Place& at, std::int64_t n, int height, int width) {
    return at.image < n && at.row >= 0 && at.row < height && at.column >= 0 && at.column < width;
}

// u = [norm, ReLU](x) of the input halo of an output tile, for `width` channels from `first` on;
// zero outside the image, for padding comes after the ReLU.
template <typename T, bool kWide>
__device__ __forceinline__ void load_halo(T* halo, const Shape& shape, const Tiling& tiling,
                                          const Place& at, const T* x, const NormTile& norm,
                                          int first, int width) {
    constexpr int kSize = Pack<T>::kSize;
    const int packs = width / kSize;
    const int padding = shape.dilation * (shape.kernel - 1) / 2;
#pragma unroll 1
    for (int item = threadIdx.x; item < tiling.halo() * packs; item += kThreads) {
        const int channel = item % packs * kSize;
        const int pixel = item / packs;
        const int column = pixel % tiling.halo_columns;
        const int line = pixel / tiling.halo_columns;
        const Place in = {at.image + line / tiling.halo_rows,
                          at.row * shape.stride - padding + line % tiling.halo_rows,
                          at.column * shape.stride - padding + column};
        const int valid = shape.c - first - channel;
        Pack<T> u;
        u.clear();
        if (valid > 0 && is_inside(in, shape.n, shape.h, shape.w)) {
            const std::int64_t row = (in.image * shape.h + in.row) * shape.w + in.column;
            u.template load<kWide>(x + row * shape.c + first + channel, valid);
            apply_norm(u, norm, channel);
#pragma unroll
            for (int i = 0; i < kSize; ++i) {
                u.value[i] = rectified(u.value[i]);
            }
        }
        u.store(halo + pixel * width + channel);
    }
}

// The depthwise weights of `width` channels as floats, [taps][width]; zero outside the tensor.
template <typename T>
__device__ __forceinline__ void load_taps(float* taps, const Shape& shape, const T* depthwise,
                                          int first, int width) {
    const int count = shape.kernel * shape.kernel;
#pragma unroll 1
    for (int item = threadIdx.x; item < count * width; item += kThreads) {
        const int c = first + item % width;
        const bool is_there = c < shape.c;
        taps[item] = is_there ? to_float(depthwise[c * count + item / width]) : 0.0f;
    }
}

// The depthwise convolution of a tile, from its halo, into columns `left` on of t[pixels][pitch].
template <typename T>
__device__ __forceinline__ void convolve(T* t, int pitch, int left, int pixels, const T* halo,
                                         const float* taps, const Shape& shape,
                                         const Tiling& tiling, int width) {
    constexpr int kSize = Pack<T>::kSize;
    const int packs = width / kSize;
#pragma unroll 1
    for (int item = threadIdx.x; item < pixels * packs; item += kThreads) {
        const int channel = item % packs * kSize;
        const int m = item / packs;
        Pack<T> sum;
        sum.clear();
        if (m < tiling.pixels()) {
            const Place at = pixel_at(tiling, {0, 0, 0}, m);
            const T* const from = halo + channel +
                ((static_cast<int>(at.image) * tiling.halo_rows + at.row * shape.stride) *
                     tiling.halo_columns + at.column * shape.stride) * width;
            for (int tap_row = 0; tap_row < shape.kernel; ++tap_row) {
                const T* line = from + tap_row * shape.dilation * tiling.halo_columns * width;
                const float* weight = taps + tap_row * shape.kernel * width + channel;
                for (int tap = 0; tap < shape.kernel; ++tap) {
                    Pack<T> u;
                    float w[kSize];
                    u.load(line);
                    load_floats(w, weight);
#pragma unroll
                    for (int i = 0; i < kSize; ++i) {
                        sum.value[i] += u.value[i] * w[i];
                    }
                    line += shape.dilation * width;
                    weight += width;
                }
            }
        }
        sum.store(t + m * pitch + left + channel);
    }
}

// A part of a matrix [rows][columns], zero outside it, into target[height][pitch].
template <typename T, bool kWide>
__device__ __forceinline__ void load_matrix(T* target, int pitch, int height, int width,
                                            const T* matrix, int rows, int columns, int top,
                                            int left) {
    constexpr int kSize = Pack<T>::kSize;
    const int packs = width / kSize;
#pragma unroll 1
    for (int item = threadIdx.x; item < height * packs; item += kThreads) {
        const int column = item % packs * kSize;
        const int row = item / packs;
        const int valid = columns - left - column;
        Pack<T> each;
        each.clear();
        if (valid > 0 && top + row < rows) {
            each.template load<kWide>(
                matrix + static_cast<std::int64_t>(top + row) * columns + left + column, valid);
        }
        each.store(target + row * pitch + column);
    }
}

// The last dimensions of tiles, largest first, such that `bytes(tiling)` fits into shared memory.
template <typename Halo, typename Bytes>
Tiling choose_tiling(std::int64_t images, int rows, int columns, int most_pixels, Halo halo,
                     Bytes bytes) {
    const auto bits = [](std::int64_t size, int most) {
        int found = 0;
        while ((1 << found) < size && (1 << found) < most) {
            ++found;
        }
        return found;
    };
    Tiling tiling{};
    tiling.column_bits = bits(columns, std::min(16, most_pixels / 8));
    tiling.row_bits = bits(rows, most_pixels >> tiling.column_bits);
    tiling.image_bits = bits(images, most_pixels >> (tiling.column_bits + tiling.row_bits));
    for (;;) {
        tiling.halo_rows = halo(tiling.rows());
        tiling.halo_columns = halo(tiling.columns());
        if (bytes(tiling) <= kSharedLimit) {
            break;
        }
        if (tiling.image_bits > 0) {
            --tiling.image_bits;
        } else if (tiling.row_bits >= tiling.column_bits && tiling.row_bits > 0) {
            --tiling.row_bits;
        } else if (tiling.column_bits > 0) {
            --tiling.column_bits;
        } else {
            throw std::invalid_argument("the window is too large for shared memory");
        }
    }
    const auto tiles = [](std::int64_t size, int shift) { return (size + (1 << shift) - 1) >> shift; };
    tiling.tiles_down = static_cast<int>(tiles(rows, tiling.row_bits));
    tiling.tiles_across = static_cast<int>(tiles(columns, tiling.column_bits));
    tiling.tiles = tiles(images, tiling.image_bits) * tiling.tiles_down * tiling.tiles_across;
    return tiling;
}

inline int reach(const Shape& shape) { return shape.dilation * (shape.kernel - 1); }

// Regions of one block of shared memory, one after the other.
class Layout {
  public:
    __host__ __device__ explicit Layout(int used = 0) : used_(used) {}

    template <typename T>
    __host__ __device__ int take(int count) {
        const int at = used_;
        used_ += (count * static_cast<int>(sizeof(T)) + 127) / 128 * 128;
        return at;
    }

    __host__ __device__ int used() const { return used_; }

  private:
    int used_;
};

}  // namespace hwnas_cuda
