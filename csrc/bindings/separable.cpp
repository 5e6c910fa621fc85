#include "cpu/kernels/separable.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "bindings/bind.h"

namespace py = pybind11;

namespace {

using hwnas_bindings::Address;
using hwnas_bindings::check_given;
using hwnas_bindings::check_range;
using hwnas_bindings::input;
using hwnas_bindings::output;

using Sizes = std::array<std::int64_t, 8>;
constexpr const char* kNames[] = {"batch",   "height", "width",  "channels",
                                  "outputs", "kernel", "stride", "dilation"};

hwnas::SeparableShape shape_from(const Sizes& sizes) {
    check_range("batch", sizes[0], 0, INT64_MAX);
    for (const std::size_t i : {1U, 2U, 3U, 4U, 6U, 7U}) {
        check_range(kNames[i], sizes[i], 1);
    }
    check_range("kernel", sizes[5], 1, hwnas::kLargestKernel);
    if (sizes[5] % 2 == 0) {
        throw std::invalid_argument("kernel is even: " + std::to_string(sizes[5]));
    }
    const auto side = [&](std::size_t i) { return static_cast<int>(sizes[i]); };
    return {sizes[0], side(1), side(2), side(3), side(4), side(5), side(6), side(7)};
}

void forward(const Sizes& sizes, Address x, const py::object& norm, Address depthwise,
             Address pointwise, Address z, Address statistics, int threads) {
    hwnas::SeparableArgs args{};
    args.shape = shape_from(sizes);
    args.x = input(x);
    args.norm = hwnas_bindings::norm_from(norm, args.shape.channels);
    args.depthwise = input(depthwise);
    args.pointwise = input(pointwise);
    args.z = output(z);
    args.statistics = output(statistics);
    args.threads = threads;
    check_range("threads", threads, 1);
    check_given(1, {{"depthwise", depthwise}, {"pointwise", pointwise}});
    check_given(args.shape.batch, {{"x", x}, {"z", z}});
    const py::gil_scoped_release release;
    hwnas::separable_forward(args);
}

void backward(const Sizes& sizes, const py::tuple& up, Address x, const py::object& norm,
              Address depthwise, Address pointwise, Address dx, bool accumulate,
              Address d_depthwise, Address d_pointwise, Address sums, int threads) {
    hwnas::SeparableBackwardArgs args{};
    args.shape = shape_from(sizes);
    const std::int64_t pixels = args.shape.batch * args.shape.rows() * args.shape.columns();
    args.up = hwnas_bindings::upstream_from(up, args.shape.outputs, pixels);
    args.x = input(x);
    args.norm = hwnas_bindings::norm_from(norm, args.shape.channels);
    args.depthwise = input(depthwise);
    args.pointwise = input(pointwise);
    args.dx = output(dx);
    args.accumulate = accumulate;
    args.d_depthwise = output(d_depthwise);
    args.d_pointwise = output(d_pointwise);
    args.sums = output(sums);
    args.threads = threads;
    check_range("threads", threads, 1);
    check_given(1, {{"depthwise", depthwise},
                    {"pointwise", pointwise},
                    {"d_depthwise", d_depthwise},
                    {"d_pointwise", d_pointwise}});
    check_given(args.shape.batch, {{"x", x}, {"dx", dx}});
    check_given(args.norm.is_none() ? 0 : 1, {{"sums", sums}});
    const py::gil_scoped_release release;
    hwnas::separable_backward(args);
}

}  // namespace

namespace hwnas_bindings {

void bind_separable(py::module_& m) {
    m.attr("largest_kernel") = hwnas::kLargestKernel;
    m.def("separable", &forward, py::arg("sizes"), py::arg("x"), py::arg("norm"),
          py::arg("depthwise"), py::arg("pointwise"), py::arg("z"), py::arg("statistics"),
          py::arg("threads"), "Separable convolution of a batch of images.");
    m.def("separable_backward", &backward, py::arg("sizes"), py::arg("up"), py::arg("x"),
          py::arg("norm"), py::arg("depthwise"), py::arg("pointwise"), py::arg("dx"),
          py::arg("accumulate"), py::arg("d_depthwise"), py::arg("d_pointwise"), py::arg("sums"),
          py::arg("threads"), "Gradients of a separable convolution.");
}

}  // namespace hwnas_bindings
