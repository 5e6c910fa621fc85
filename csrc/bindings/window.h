// A sliding window as Python hands it over.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "cpu/kernels/window.h"

namespace hwnas_bindings {

// (images, channels, height, width, out_height, out_width, kernel, stride, dilation).
inline hwnas::Window window_from(const pybind11::tuple& fields) {
    return {fields[0].cast<std::int64_t>(),
            fields[1].cast<int>(),
            fields[2].cast<int>(),
            fields[3].cast<int>(),
            fields[4].cast<int>(),
            fields[5].cast<int>(),
            fields[6].cast<int>(),
            fields[7].cast<int>(),
            fields[8].cast<int>()};
}

}  // namespace hwnas_bindings
