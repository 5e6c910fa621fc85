// Pooling.
#include "cpu/kernels/pool.h"

#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings/bind.h"
#include "bindings/window.h"

namespace py = pybind11;

namespace {

using hwnas_bindings::Address;
using hwnas_bindings::check_given;
using hwnas_bindings::check_range;
using hwnas_bindings::input;
using hwnas_bindings::output;
using hwnas_bindings::window_from;

std::uint8_t* bytes(Address address) {
    return reinterpret_cast<std::uint8_t*>(address);
}

void pool(const py::tuple& window, Address x, Address z, Address index, Address statistics,
          int threads) {
    const hwnas::PoolArgs args{window_from(window), input(x),           output(z),
                               bytes(index),        output(statistics), threads};
    check_range("threads", threads, 1);
    check_given(args.window.images, {{"x", x}, {"z", z}});
    const py::gil_scoped_release release;
    if (args.index != nullptr) {
        hwnas::max_pool(args);
    } else {
        hwnas::average_pool(args);
    }
}

void pool_backward(const py::tuple& window, const py::tuple& up, Address index, Address dx,
                   bool is_added, int threads) {
    const hwnas::Window geometry = window_from(window);
    const std::int64_t count = geometry.images * geometry.out_height * geometry.out_width;
    const hwnas::PoolBackwardArgs args{
        geometry, hwnas_bindings::upstream_from(up, geometry.channels, count), bytes(index),
        output(dx), is_added, threads};
    check_range("threads", threads, 1);
    check_given(count, {{"dx", dx}});
    const py::gil_scoped_release release;
    if (args.index != nullptr) {
        hwnas::max_pool_backward(args);
    } else {
        hwnas::average_pool_backward(args);
    }
}

}  // namespace

namespace hwnas_bindings {

void bind_pool(py::module_& m) {
    m.def("pool", &pool, py::arg("window"), py::arg("x"), py::arg("z"), py::arg("index"),
          py::arg("statistics"), py::arg("threads"),
          "Max pooling (with an index) or average pooling.");
    m.def("pool_backward", &pool_backward, py::arg("window"), py::arg("up"), py::arg("index"),
          py::arg("dx"), py::arg("is_added"), py::arg("threads"), "Gradient of pooling.");
}

}  // namespace hwnas_bindings
