// nvcuda::wmma for 16x16 tiles. A lane owns one half of a row of the accumulator, and holds the row
// of A and the half of B's columns that it needs for that.
#pragma once

#include "host_shim/half.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

namespace precision {
struct tf32 {};
}  // namespace precision

// Ten bits of fraction, rounded to nearest, ties away from zero as cvt.rna does.
inline float __float_to_tf32(float x) {
    if (!(std::fabs(x) <= 3.4028235e38f)) {
        return x;
    }
    return hwnas_shim::float_of((hwnas_shim::bits_of(x) + 0x1000u) & 0xffffe000u);
}

template <typename Type>
struct Element {
    using type = Type;
};
template <>
struct Element<precision::tf32> {
    using type = float;
};

template <typename Use, int kHeight, int kWidth, int kDepth, typename Type, typename Layout = void>
struct fragment;

template <int kDepth, typename Type, typename Layout>
struct fragment<matrix_a, 16, 16, kDepth, Type, Layout> {
    static constexpr int num_elements = kDepth;
    typename Element<Type>::type x[num_elements];
};

template <int kDepth, typename Type, typename Layout>
struct fragment<matrix_b, 16, 16, kDepth, Type, Layout> {
    static constexpr int num_elements = kDepth * 8;
    typename Element<Type>::type x[num_elements];
};

template <int kDepth>
struct fragment<accumulator, 16, 16, kDepth, float, void> {
    static constexpr int num_elements = 8;
    float x[num_elements];
};

inline int own_row() { return hwnas_shim::lane() / 2; }
inline int own_column() { return hwnas_shim::lane() % 2 * 8; }

inline float value_of(float x) { return x; }
inline float value_of(__half x) { return __half2float(x); }
inline float value_of(__nv_bfloat16 x) { return __bfloat162float(x); }

// The alignment that the hardware wants.
void check_address(const void* address, std::size_t pitch_bytes);

template <typename Layout>
constexpr bool is_row_major = false;
template <>
inline constexpr bool is_row_major<row_major> = true;

template <int kDepth, typename Type, typename Layout, typename T>
void load_matrix_sync(fragment<matrix_a, 16, 16, kDepth, Type, Layout>& a, const T* address,
                      unsigned pitch) {
    check_address(address, pitch * sizeof(T));
    for (int k = 0; k < kDepth; ++k) {
        a.x[k] = is_row_major<Layout> ? address[own_row() * pitch + k]
                                      : address[k * pitch + own_row()];
    }
}

template <int kDepth, typename Type, typename Layout, typename T>
void load_matrix_sync(fragment<matrix_b, 16, 16, kDepth, Type, Layout>& b, const T* address,
                      unsigned pitch) {
    check_address(address, pitch * sizeof(T));
    for (int k = 0; k < kDepth; ++k) {
        for (int i = 0; i < 8; ++i) {
            const int n = own_column() + i;
            b.x[k * 8 + i] =
                is_row_major<Layout> ? address[k * pitch + n] : address[n * pitch + k];
        }
    }
}

template <int kDepth>
void fill_fragment(fragment<accumulator, 16, 16, kDepth, float>& sum, float value) {
    for (float& each : sum.x) {
        each = value;
    }
}

template <int kDepth, typename A, typename B>
void mma_sync(fragment<accumulator, 16, 16, kDepth, float>& d, const A& a, const B& b,
              const fragment<accumulator, 16, 16, kDepth, float>& c) {
    hwnas_shim::warp_barrier(__FILE__, __LINE__);
    for (int i = 0; i < 8; ++i) {
        float sum = c.x[i];
        for (int k = 0; k < kDepth; ++k) {
            sum += value_of(a.x[k]) * value_of(b.x[k * 8 + i]);
        }
        d.x[i] = sum;
    }
}

template <int kDepth>
void store_matrix_sync(float* address, const fragment<accumulator, 16, 16, kDepth, float>& sum,
                       unsigned pitch, layout_t layout) {
    check_address(address, pitch * sizeof(float));
    for (int i = 0; i < 8; ++i) {
        const int n = own_column() + i;
        address[layout == mem_row_major ? own_row() * pitch + n : n * pitch + own_row()] = sum.x[i];
    }
}

}  // namespace nvcuda::wmma
