// Kernels with mistakes that the shim must notice.
#pragma once

#include <string>

#include "host_shim/cuda.h"

namespace hwnas_shim {

// "block_barrier", "warp_barrier", "early_exit", "shared_memory", "overflow" (seen by the address
// sanitizer only) or "none": runs a kernel with that mistake.
void provoke(const std::string& mistake);

}  // namespace hwnas_shim
