// The one place that knows whether kernels are compiled by nvcc or run on the CPU by the host shim.
#pragma once

#ifdef HWNAS_HOST_SHIM

#include "host_shim/cuda.h"

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <mma.h>

#include <stdexcept>
#include <string>

// Dynamic shared memory of the block: kernels use no other kind, so that the launch knows its size.
#define HWNAS_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

#endif

namespace hwnas_cuda {

// What a kernel may have without asking; more is opted in, up to what every GPU since sm_80 has.
constexpr int kSharedDefault = 48 * 1024;
constexpr int kSharedLimit = 96 * 1024;

#ifdef HWNAS_HOST_SHIM

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, int shared, void* /* stream */,
            const Arguments&... arguments) {
    hwnas_shim::run(grid, dim3(threads), shared, shared > kSharedDefault,
                    [&] { kernel(static_cast<Parameters>(arguments)...); });
}

#else

inline void check(cudaError_t error, const char* what) {
    if (error != cudaSuccess) {
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
    }
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, int shared, void* stream,
            const Arguments&... arguments) {
    if (shared > kSharedDefault) {
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
              "shared memory was refused");
    }
    kernel<<<grid, dim3(threads), shared, static_cast<cudaStream_t>(stream)>>>(
        static_cast<Parameters>(arguments)...);
    check(cudaGetLastError(), "a kernel could not be launched");
}

#endif

}  // namespace hwnas_cuda
