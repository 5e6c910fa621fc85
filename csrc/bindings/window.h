// A sliding window as Python hands it over.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings/checks.h"
#include "cpu/kernels/window.h"

namespace hwnas_bindings {

// The index of a max pool is a byte, as LARGEST_KERNEL in kernels/backend.py has it.
constexpr int kLargestWindow = 15;

// (images, channels, height, width, out_height, out_width, kernel, stride, dilation).
inline hwnas::Window window_from(const pybind11::tuple& fields) {
    check_count("sizes of a window", fields.size(), 9);
    const hwnas::Window window{fields[0].cast<std::int64_t>(),
                               fields[1].cast<int>(),
                               fields[2].cast<int>(),
                               fields[3].cast<int>(),
                               fields[4].cast<int>(),
                               fields[5].cast<int>(),
                               fields[6].cast<int>(),
                               fields[7].cast<int>(),
                               fields[8].cast<int>()};
    check_range("images", window.images, 0);
    check_range("channels", window.channels, 1);
    check_range("height", window.height, 1);
    check_range("width", window.width, 1);
    check_range("kernel", window.kernel, 1, kLargestWindow);
    check_range("stride", window.stride, 1);
    check_range("dilation", window.dilation, 1, INT32_MAX / kLargestWindow);
    const auto size = [&](int side) {
        return (side + 2 * window.padding() - window.reach()) / window.stride + 1;
    };
    check_range("out_height", window.out_height, size(window.height), size(window.height));
    check_range("out_width", window.out_width, size(window.width), size(window.width));
    return window;
}

}  // namespace hwnas_bindings
