// csrc/bindings is the only folder that knows pybind11: one file for each family of functions, which
// checks what Python hands over, releases the GIL and calls csrc/cpu. A new file declares its
// function here and is called in module.cpp.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings/checks.h"
#include "cpu/norm.h"

namespace hwnas_bindings {

void bind_latency(pybind11::module_& m);
void bind_arena(pybind11::module_& m);
void bind_rnn_cell(pybind11::module_& m);
void bind_separable(pybind11::module_& m);
void bind_combine(pybind11::module_& m);
void bind_pool(pybind11::module_& m);
void bind_conv(pybind11::module_& m);
void bind_cells(pybind11::module_& m);
void bind_tfrecord(pybind11::module_& m);

// Addresses cross the boundary as integers (Tensor.data_ptr()); 0 is null.
using Address = std::uintptr_t;

inline const float* input(Address address) {
    return reinterpret_cast<const float*>(address);
}

inline float* output(Address address) {
    return reinterpret_cast<float*>(address);
}

// (statistics [2, C], gamma, beta, epsilon, is_batch), or None.
inline hwnas::Norm norm_from(const pybind11::object& packed, std::int64_t channels) {
    hwnas::Norm norm;
    if (packed.is_none()) {
        return norm;
    }
    const auto fields = pybind11::reinterpret_borrow<pybind11::tuple>(packed);
    check_count("parts of a norm", fields.size(), 5);
    check_given(channels, {{"statistics", fields[0].cast<Address>()},
                           {"scale", fields[1].cast<Address>()},
                           {"shift", fields[2].cast<Address>()}});
    norm.mean = input(fields[0].cast<Address>());
    norm.variance = norm.mean + channels;
    norm.gamma = input(fields[1].cast<Address>());
    norm.beta = input(fields[2].cast<Address>());
    norm.epsilon = fields[3].cast<float>();
    norm.is_batch = fields[4].cast<bool>();
    return norm;
}

// (dy, z or 0, norm or None, sums or 0, gate, relu); count is N * H * W of z.
inline hwnas::Upstream upstream_from(const pybind11::tuple& fields, std::int64_t channels,
                                     std::int64_t count) {
    hwnas::Upstream up;
    check_count("parts of an upstream gradient", fields.size(), 6);
    check_given(count, {{"gradient", fields[0].cast<Address>()}});
    up.dy = input(fields[0].cast<Address>());
    up.z = input(fields[1].cast<Address>());
    up.norm = norm_from(fields[2], channels);
    up.sums = input(fields[3].cast<Address>());
    up.gate = fields[4].cast<float>();
    up.relu = fields[5].cast<bool>();
    up.count = static_cast<float>(count);
    if (up.norm.is_batch) {
        check_given(count, {{"z", fields[1].cast<Address>()}, {"sums", fields[3].cast<Address>()}});
    }
    return up;
}

}  // namespace hwnas_bindings
