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

HWNAS_INLINE IntVec select(Mask mask, IntVec yes, IntVec no) {
    return (IntVec)_mm512_mask_blend_epi32(mask, (__m512i)no, (__m512i)yes);
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

HWNAS_INLINE void store_bytes(std::uint8_t* p, IntVec v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v));
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

HWNAS_INLINE void store_bytes(std::uint8_t* p, IntVec v) {
    for (int i = 0; i < kLanes; ++i) {
        p[i] = static_cast<std::uint8_t>(v[i]);
    }
}
#endif

HWNAS_INLINE IntVec load_ints(const std::int32_t* p) {
    return (IntVec)load(reinterpret_cast<const float*>(p));
}

HWNAS_INLINE void store_ints(std::int32_t* p, IntVec v) {
    store(reinterpret_cast<float*>(p), (Vec)v);
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
