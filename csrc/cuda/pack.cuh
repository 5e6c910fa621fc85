// Sixteen bytes of neighbouring channels: what one thread reads and writes at a time.
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda/api.h"
#include "cuda/platform.cuh"

namespace hwnas_cuda {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
    return __float2half(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
    return __float2bfloat16(x);
}

template <typename T>
__device__ __forceinline__ float rounded(float x) {
    return to_float(from_float<T>(x));
}

template <typename T>
struct Pack {
    static constexpr int kSize = 16 / sizeof(T);
    float value[kSize];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < kSize; ++i) {
            value[i] = 0.0f;
        }
    }

    // From an address that is a multiple of 16.
    __device__ __forceinline__ void load(const T* address) {
        const uint4 bits = *reinterpret_cast<const uint4*>(address);
        T each[kSize];
        memcpy(each, &bits, sizeof(bits));
#pragma unroll
        for (int i = 0; i < kSize; ++i) {
            value[i] = to_float(each[i]);
        }
    }

    __device__ __forceinline__ void store(T* address) const {
        T each[kSize];
#pragma unroll
        for (int i = 0; i < kSize; ++i) {
            each[i] = from_float<T>(value[i]);
        }
        uint4 bits;
        memcpy(&bits, each, sizeof(bits));
        *reinterpret_cast<uint4*>(address) = bits;
    }

    // The first `valid` channels only, the others are zero; kWide: all or none, 16-byte aligned.
    template <bool kWide>
    __device__ __forceinline__ void load(const T* address, int valid) {
        if constexpr (kWide) {
            load(address);
        } else {
#pragma unroll
            for (int i = 0; i < kSize; ++i) {
                value[i] = i < valid ? to_float(address[i]) : 0.0f;
            }
        }
    }

    template <bool kWide>
    __device__ __forceinline__ void store(T* address, int valid) const {
        if constexpr (kWide) {
            store(address);
        } else {
#pragma unroll
            for (int i = 0; i < kSize; ++i) {
                if (i < valid) {
                    address[i] = from_float<T>(value[i]);
                }
            }
        }
    }
};

// A pack as it lies in memory: half as many registers as floats where T is a 16-bit type.
template <typename T>
struct Raw {
    static constexpr int kSize = 16 / sizeof(T);
    static constexpr int kBits = 8 * sizeof(T);
    unsigned word[4] = {};

    __device__ __forceinline__ float get(int i) const {
        T each;
        if constexpr (sizeof(T) == 4) {
            memcpy(&each, &word[i], 4);
        } else {
            const auto bits = static_cast<std::uint16_t>(word[i / 2] >> (i % 2 * kBits));
            memcpy(&each, &bits, 2);
        }
        return to_float(each);
    }

    __device__ __forceinline__ void set(int i, float value) { put(i, from_float<T>(value)); }

    template <bool kWide>
    __device__ __forceinline__ void load(const T* address, int valid) {
        if constexpr (kWide) {
            const uint4 bits = *reinterpret_cast<const uint4*>(address);
            memcpy(word, &bits, sizeof(bits));
        } else {
#pragma unroll
            for (int i = 0; i < kSize; ++i) {
                put(i, i < valid ? address[i] : from_float<T>(0.0f));
            }
        }
    }

    // Into shared memory.
    __device__ __forceinline__ void keep(T* address) const {
        *reinterpret_cast<uint4*>(address) = make_uint4(word[0], word[1], word[2], word[3]);
    }

    // Into global memory.
    template <bool kWide>
    __device__ __forceinline__ void store(T* address, int valid) const {
        if constexpr (kWide) {
            // Written like this, the compiler cannot take the sixteen bytes apart.
            __stwb(reinterpret_cast<uint4*>(address),
                   make_uint4(word[0], word[1], word[2], word[3]));
        } else {
#pragma unroll
            for (int i = 0; i < kSize; ++i) {
                if (i < valid) {
                    address[i] = from_float<T>(get(i));
                }
            }
        }
    }

  private:
    __device__ __forceinline__ void put(int i, T each) {
        if constexpr (sizeof(T) == 4) {
            memcpy(&word[i], &each, 4);
        } else {
            std::uint16_t bits;
            memcpy(&bits, &each, 2);
            const unsigned other = i % 2 == 0 ? word[i / 2] & 0xffff0000u : word[i / 2] & 0xffffu;
            word[i / 2] = other | static_cast<unsigned>(bits) << (i % 2 * kBits);
        }
    }
};

// As many floats as a pack of T has channels, in shared memory.
template <int kSize>
__device__ __forceinline__ void load_floats(float (&target)[kSize], const float* address) {
#pragma unroll
    for (int i = 0; i < kSize; i += 4) {
        const float4 each = *reinterpret_cast<const float4*>(address + i);
        target[i] = each.x;
        target[i + 1] = each.y;
        target[i + 2] = each.z;
        target[i + 3] = each.w;
    }
}

// Whether rows of `channels` elements are made of whole packs at these addresses.
template <typename... Pointers>
bool is_wide(Type type, int channels, const Pointers*... pointers) {
    const int size = type == Type::kFloat ? 4 : 8;
    const std::uintptr_t bits = (std::uintptr_t{0} | ... | reinterpret_cast<std::uintptr_t>(pointers));
    return channels % size == 0 && bits % 16 == 0;
}

}  // namespace hwnas_cuda
