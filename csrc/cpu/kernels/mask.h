// Comparisons as the instruction set has them (AVX-512 keeps them in registers of their own), and
// the bytes that a maximum's winner is kept in.
// Include from kernel files only.
#pragma once

#include "cpu/simd.h"

namespace hwnas {
namespace HWNAS_ISA {

#if defined(__AVX512F__)
typedef __mmask16 Mask;

HWNAS_INLINE Vec select(Mask mask, Vec yes, Vec no) {
    return (Vec)_mm512_mask_blend_ps(mask, (__m512)no, (__m512)yes);
}

// Where `value` takes the place of `best`, an earlier one: greater, or NaN.
HWNAS_INLINE Mask wins_maximum(Vec value, Vec best) {
    return (Mask)(_mm512_cmp_ps_mask((__m512)value, (__m512)best, _CMP_GT_OQ) |
                  _mm512_cmp_ps_mask((__m512)value, (__m512)value, _CMP_UNORD_Q));
}

// `value` in the lanes whose byte is `tap`, 0 elsewhere, added to `sum`.
HWNAS_INLINE Vec add_where(const std::uint8_t* bytes, int tap, Vec value, Vec sum) {
    const __m128i at = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
    const Mask mask = _mm_cmpeq_epi8_mask(at, _mm_set1_epi8(static_cast<char>(tap)));
    return (Vec)_mm512_mask_add_ps((__m512)sum, mask, (__m512)sum, (__m512)value);
}

// Taps of a vector's lanes, and how memory keeps one: bytes, which is half the work of integers.
typedef __m128i Taps;
typedef std::uint8_t Tap;

HWNAS_INLINE Taps all_taps(int tap) {
    return _mm_set1_epi8(static_cast<char>(tap));
}

HWNAS_INLINE Taps load_taps(const Tap* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

HWNAS_INLINE void store_taps(Tap* p, Taps taps) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), taps);
}

HWNAS_INLINE Taps add_taps(Taps a, Taps b) {
    return _mm_add_epi8(a, b);
}

// a + b where the mask is set.
HWNAS_INLINE Taps select_sum(Mask mask, Taps a, Taps b, Taps no) {
    return _mm_mask_add_epi8(no, mask, a, b);
}

HWNAS_INLINE Taps select(Mask mask, Taps yes, Taps no) {
    return _mm_mask_blend_epi8(mask, no, yes);
}

HWNAS_INLINE void store_bytes(std::uint8_t* p, Taps taps) {
    store_taps(p, taps);
}

HWNAS_INLINE Mask is_greater(Vec value, Vec best) {
    return (Mask)_mm512_cmp_ps_mask((__m512)value, (__m512)best, _CMP_GT_OQ);
}
#else
typedef IntVec Mask;

HWNAS_INLINE Vec select(Mask mask, Vec yes, Vec no) {
    return mask ? yes : no;
}

HWNAS_INLINE IntVec select(Mask mask, IntVec yes, IntVec no) {
    return mask ? yes : no;
}

HWNAS_INLINE Mask wins_maximum(Vec value, Vec best) {
    return (value > best) | (value != value);
}

HWNAS_INLINE Vec add_where(const std::uint8_t* bytes, int tap, Vec value, Vec sum) {
#if defined(__AVX2__)
    const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
    const IntVec at = (IntVec)_mm256_cvtepu8_epi32(low);
#else
    const IntVec at = {bytes[0], bytes[1], bytes[2], bytes[3]};
#endif
    return sum + (Vec)((IntVec)value & (at == tap));
}

typedef IntVec Taps;
typedef std::int32_t Tap;

HWNAS_INLINE Taps all_taps(int tap) {
    return IntVec{} + tap;
}

HWNAS_INLINE Taps load_taps(const Tap* p) {
    return (IntVec)load(reinterpret_cast<const float*>(p));
}

HWNAS_INLINE void store_taps(Tap* p, Taps taps) {
    store(reinterpret_cast<float*>(p), (Vec)taps);
}

HWNAS_INLINE Taps add_taps(Taps a, Taps b) {
    return a + b;
}

HWNAS_INLINE Taps select_sum(Mask mask, Taps a, Taps b, Taps no) {
    return select(mask, a + b, no);
}

HWNAS_INLINE void store_bytes(std::uint8_t* p, Taps taps) {
#if defined(__AVX2__)
    const __m256i all = (__m256i)taps;
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
#else
    for (int i = 0; i < kLanes; ++i) {
        p[i] = static_cast<std::uint8_t>(taps[i]);
    }
#endif
}

HWNAS_INLINE Mask is_greater(Vec value, Vec best) {
    return value > best;
}
#endif

}  // namespace HWNAS_ISA
}  // namespace hwnas
