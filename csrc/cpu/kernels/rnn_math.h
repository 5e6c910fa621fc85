// Sigmoid and tanh of vectors, within about two units in the last place.
#pragma once

#include "cpu/simd.h"

namespace hwnas {
namespace HWNAS_ISA {

// Subtracting zero, unlike adding it, changes no value: the compiler drops it.
HWNAS_INLINE Vec broadcast(float x) {
    return x - Vec{};
}

HWNAS_INLINE Vec divide(Vec a, Vec b) {
#if defined(__AVX512F__)
    // Two Newton steps on the 14-bit reciprocal: a division would block the multiplier for longer.
    Vec r = (Vec)_mm512_maskz_rcp14_ps((__mmask16)0xffff, (__m512)b);
    r += r * (1.0f - b * r);
    const Vec q = a * r;
    return q + r * (a - b * q);
#else
    return a / b;
#endif
}

// x = n ln 2 + r with |r| <= ln 2 / 2; scale is 2^n, tail is e^r - 1. |x| <= 88 or NaN.
struct Exponential {
    Vec scale;
    Vec tail;
};

HWNAS_INLINE Exponential split_exp(Vec x) {
    constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const Vec shifted = x * 1.44269504088896341f + kMagic;
    const Vec n = shifted - kMagic;
    Vec r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    // Cephes expf.
    Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const IntVec scale = ((IntVec)shifted << 23) + 0x3f800000;
    return {(Vec)scale, (r * r) * p + r};
}

// 1 / (1 + e^-x). NaN stays NaN.
HWNAS_INLINE Vec sigmoid(Vec x) {
    x = x < -87.0f ? Vec{} - 87.0f : x;
    x = x > 87.0f ? Vec{} + 87.0f : x;
    const Exponential e = split_exp(-x);
    return divide(Vec{} + 1.0f, (e.scale + 1.0f) + e.scale * e.tail);
}

// m / (m + 2) with m = e^2x - 1, which keeps all digits of a small x. NaN stays NaN.
HWNAS_INLINE Vec tanh(Vec x) {
    x = x < -9.1f ? Vec{} - 9.1f : x;
    x = x > 9.1f ? Vec{} + 9.1f : x;
    const Exponential e = split_exp(x + x);
    const Vec m = e.scale * e.tail + (e.scale - 1.0f);
    return divide(m, m + 2.0f);
}

enum Activation : int { kTanh = 0, kRelu = 1, kIdentity = 2, kSigmoid = 3 };

template <int ACTIVATION>
HWNAS_INLINE Vec activate(Vec x) {
    if constexpr (ACTIVATION == kTanh) {
        return tanh(x);
    } else if constexpr (ACTIVATION == kRelu) {
        return relu(x);
    } else if constexpr (ACTIVATION == kIdentity) {
        return x;
    } else {
        return sigmoid(x);
    }
}

// The gradient of the activation's input, from its value n and the gradient g of that.
template <int ACTIVATION>
HWNAS_INLINE Vec activate_backward(Vec n, Vec g) {
    if constexpr (ACTIVATION == kTanh) {
        return g * (1.0f - n * n);
    } else if constexpr (ACTIVATION == kRelu) {
        return n <= 0.0f ? Vec{} : g;
    } else if constexpr (ACTIVATION == kIdentity) {
        return g;
    } else {
        return g * (n * (1.0f - n));
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
