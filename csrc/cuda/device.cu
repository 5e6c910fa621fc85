// Whether there is a device to run on.
#include "cuda/api.h"
#include "cuda/platform.cuh"

namespace hwnas_cuda {

#ifdef HWNAS_HOST_SHIM

const char* device_problem() { return nullptr; }

#else

const char* device_problem() {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
        return cudaGetErrorString(error);
    }
    return count == 0 ? "no CUDA-capable device is detected" : nullptr;
}

#endif

}  // namespace hwnas_cuda
