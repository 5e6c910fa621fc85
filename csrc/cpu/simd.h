// Vectors of floats, as wide as the instruction set that this translation unit is compiled for.
//
// GCC's vector extensions: `a * b + c` becomes one FMA where there is one (-ffp-contract=fast).
// Include from kernel files only, inside nothing: everything lives in hwnas::HWNAS_ISA.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__)
#include <immintrin.h>
#define HWNAS_LANES 16
#elif defined(__AVX__)
#include <immintrin.h>
#define HWNAS_LANES 8
#else
#define HWNAS_LANES 4
#endif

namespace hwnas {
namespace HWNAS_ISA {

constexpr int kLanes = HWNAS_LANES;
#if defined(__AVX512F__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

typedef float Vec __attribute__((vector_size(HWNAS_LANES * 4)));
typedef float VecU __attribute__((vector_size(HWNAS_LANES * 4), aligned(4), may_alias));
typedef std::int32_t IntVec __attribute__((vector_size(HWNAS_LANES * 4)));

#define HWNAS_INLINE static inline __attribute__((always_inline))

HWNAS_INLINE Vec load(const float* p) {
    return *reinterpret_cast<const VecU*>(p);
}

HWNAS_INLINE void store(float* p, Vec v) {
    *reinterpret_cast<VecU*>(p) = v;
}

HWNAS_INLINE Vec splat(float x) {
    return Vec{} + x;
}

HWNAS_INLINE Vec zero() {
    return Vec{};
}

// The first n (0 to kLanes) values at p, zeros after them; reads nothing behind p + n.
HWNAS_INLINE Vec load_first(const float* p, int n) {
#if defined(__AVX512F__)
    return (Vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p);
#else
    Vec v{};
    for (int i = 0; i < n; ++i) {
        v[i] = p[i];
    }
    return v;
#endif
}

// Writes the first n values of v and nothing behind them.
HWNAS_INLINE void store_first(float* p, Vec v, int n) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), (__m512)v);
#else
    for (int i = 0; i < n; ++i) {
        p[i] = v[i];
    }
#endif
}

HWNAS_INLINE Vec max(Vec a, Vec b) {
    return a > b ? a : b;
}

// Passes NaN on, as PyTorch's ReLU does.
HWNAS_INLINE Vec relu(Vec a) {
#if defined(__AVX512F__)  // one instruction; it returns the second operand where there is a NaN
    return (Vec)_mm512_maskz_max_ps(0xFFFF, (__m512)Vec{}, (__m512)a);
#elif defined(__AVX__)
    return (Vec)_mm256_max_ps((__m256)Vec{}, (__m256)a);
#else
    return a <= 0.0f ? Vec{} : a;
#endif
}

HWNAS_INLINE float sum_lanes(Vec v) {
    float total = 0.0f;
    for (int i = 0; i < kLanes; ++i) {
        total += v[i];
    }
    return total;
}

HWNAS_INLINE int min(int a, int b) {
    return a < b ? a : b;
}

HWNAS_INLINE int max(int a, int b) {
    return a > b ? a : b;
}

HWNAS_INLINE int round_up(int n, int step) {
    return (n + step - 1) / step * step;
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
