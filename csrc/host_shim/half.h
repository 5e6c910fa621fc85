// __half and __nv_bfloat16 by bits, rounded to the nearest (ties to even) as on a GPU.
#pragma once

#include <cstdint>
#include <cstring>

struct __half {
    std::uint16_t bits;
};

struct __nv_bfloat16 {
    std::uint16_t bits;
};

namespace hwnas_shim {

inline std::uint32_t bits_of(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    return bits;
}

inline float float_of(std::uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
}

// The upper bits of a float without its last `dropped`, rounded to nearest even.
inline std::uint32_t round_bits(std::uint32_t bits, int dropped) {
    const std::uint32_t odd = (bits >> dropped) & 1u;
    return (bits + (1u << (dropped - 1)) - 1u + odd) >> dropped;
}

}  // namespace hwnas_shim

inline float __bfloat162float(__nv_bfloat16 x) {
    return hwnas_shim::float_of(static_cast<std::uint32_t>(x.bits) << 16);
}

inline __nv_bfloat16 __float2bfloat16(float x) {
    if (x != x) {
        return {0x7fff};
    }
    return {static_cast<std::uint16_t>(hwnas_shim::round_bits(hwnas_shim::bits_of(x), 16))};
}

inline float __half2float(__half x) {
    const std::uint32_t sign = (x.bits & 0x8000u) << 16;
    const std::uint32_t exponent = (x.bits >> 10) & 0x1fu;
    const std::uint32_t fraction = x.bits & 0x3ffu;
    if (exponent == 0x1fu) {
        return hwnas_shim::float_of(sign | 0x7f800000u | (fraction << 13));
    }
    if (exponent == 0) {
        const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
        return sign != 0 ? -magnitude : magnitude;
    }
    return hwnas_shim::float_of(sign | ((exponent + 112u) << 23) | (fraction << 13));
}

inline __half __float2half(float x) {
    const std::uint32_t bits = hwnas_shim::bits_of(x);
    const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    std::uint32_t half;
    if (magnitude > 0x7f800000u) {
        half = 0x7fffu;
    } else if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
        half = 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // below 2^-14: a denormal, a multiple of 2^-24
        // Adding 0.5 leaves exactly the wanted bits at the end of the sum, rounded.
        half = hwnas_shim::bits_of(hwnas_shim::float_of(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        half = hwnas_shim::round_bits(magnitude - 0x38000000u, 13);
    }
    return {static_cast<std::uint16_t>(sign | half)};
}
