#include "cpu/kernels/separable.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>

#include "bindings/bind.h"

namespace py = pybind11;

namespace {

using hwnas_bindings::Address;
using hwnas_bindings::input;
using hwnas_bindings::output;

// batch, height, width, channels, outputs, kernel, stride, dilation
using Sizes = std::array<std::int64_t, 8>;

hwnas::SeparableShape shape_from(const Sizes& sizes) {
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
