// Dense convolutions and the factorised reduction.
#include "cpu/kernels/conv.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <iterator>
#include <vector>

#include "bindings/bind.h"
#include "bindings/window.h"

namespace py = pybind11;

namespace {

using hwnas_bindings::Address;
using hwnas_bindings::check_given;
using hwnas_bindings::check_range;
using hwnas_bindings::input;
using hwnas_bindings::Needed;
using hwnas_bindings::output;
using hwnas_bindings::upstream_from;
using hwnas_bindings::window_from;

// (x, channels, dx or 0, accumulate) of each input.
std::vector<hwnas::ConvInput> inputs_from(const py::list& packed) {
    std::vector<hwnas::ConvInput> inputs;
    for (const py::handle each : packed) {
        const auto fields = py::reinterpret_borrow<py::tuple>(each);
        inputs.push_back({input(fields[0].cast<Address>()), fields[1].cast<int>(),
                          output(fields[2].cast<Address>()), fields[3].cast<bool>()});
    }
    return inputs;
}

hwnas::PointwiseArgs pointwise_args(const std::vector<hwnas::ConvInput>& inputs, bool relu,
                                    std::int64_t pixels, int columns, Address weight, int threads) {
    check_range("inputs", static_cast<std::int64_t>(inputs.size()), 1);
    check_range("pixels", pixels, 0, INT64_MAX);
    check_range("columns", columns, 1);
    check_range("threads", threads, 1);
    check_given(columns, {{"weight", weight}});
    int depth = 0;
    for (const hwnas::ConvInput& each : inputs) {
        check_range("channels", each.channels, 1);
        check_given(pixels, {{"x", reinterpret_cast<Address>(each.x)}});
        depth += each.channels;
    }
    return {inputs.data(), static_cast<int>(inputs.size()), relu, pixels, depth, columns,
            input(weight), nullptr, nullptr, threads};
}

void pointwise(const py::list& packed, bool relu, std::int64_t pixels, int columns, Address weight,
               Address z, Address statistics, int threads) {
    const std::vector<hwnas::ConvInput> inputs = inputs_from(packed);
    hwnas::PointwiseArgs args = pointwise_args(inputs, relu, pixels, columns, weight, threads);
    args.z = output(z);
    args.statistics = output(statistics);
    check_given(pixels, {{"z", z}});
    const py::gil_scoped_release release;
    hwnas::pointwise(args);
}

void pointwise_backward(const py::list& packed, bool relu, std::int64_t pixels, int columns,
                        Address weight, const py::tuple& up, Address dweight, int threads) {
    const std::vector<hwnas::ConvInput> inputs = inputs_from(packed);
    const hwnas::PointwiseBackwardArgs args{
        pointwise_args(inputs, relu, pixels, columns, weight, threads),
        upstream_from(up, columns, pixels), output(dweight)};
    check_given(columns, {{"dweight", dweight}});
    const py::gil_scoped_release release;
    hwnas::pointwise_backward(args);
}

std::int64_t pixels_of(const hwnas::Window& window) {
    return window.images * window.out_height * window.out_width;
}

// `images` is of the window; x and the weight are read, `result` is written.
void check_dense(std::int64_t images, int columns, Address x, Address weight, Needed result,
                 int threads) {
    check_range("columns", columns, 1);
    check_range("threads", threads, 1);
    check_given(columns, {{"weight", weight}});
    check_given(images, {{"x", x}, result});
}

void dense(const py::tuple& window, Address x, bool relu, int columns, Address weight, Address z,
           Address statistics, int threads) {
    const hwnas::DenseArgs args{window_from(window), input(x),           relu,   columns,
                                input(weight),       output(z), output(statistics), threads};
    check_dense(args.window.images, columns, x, weight, {"z", z}, threads);
    const py::gil_scoped_release release;
    hwnas::dense(args);
}

void dense_backward(const py::tuple& window, Address x, bool relu, int columns, Address weight,
                    const py::tuple& up, Address dweight, Address dx, bool is_added, int threads) {
    const hwnas::Window geometry = window_from(window);
    const hwnas::DenseBackwardArgs args{
        {geometry, input(x), relu, columns, input(weight), nullptr, nullptr, threads},
        upstream_from(up, columns, pixels_of(geometry)), output(dweight), output(dx), is_added};
    check_dense(geometry.images, columns, x, weight, {"dweight", dweight}, threads);
    const py::gil_scoped_release release;
    hwnas::dense_backward(args);
}

// Parts are (weight, gradient of it or 0, columns, offset); their results lie side by side.
hwnas::SampledArgs sampled_args(const py::tuple& window, Address x, bool relu,
                                const py::list& parts, int threads) {
    hwnas::SampledArgs args{};
    args.window = window_from(window);
    args.x = input(x);
    args.relu = relu;
    args.threads = threads;
    check_range("threads", threads, 1);
    check_range("parts", static_cast<std::int64_t>(parts.size()), 1, std::size(args.parts));
    check_given(args.window.images, {{"x", x}});
    for (const py::handle each : parts) {
        const auto fields = py::reinterpret_borrow<py::tuple>(each);
        const int columns = fields[2].cast<int>();
        check_range("columns", columns, 1);
        check_given(columns, {{"weight", fields[0].cast<Address>()}});
        args.parts[args.part_count++] = {input(fields[0].cast<Address>()),
                                         output(fields[1].cast<Address>()), columns, args.columns,
                                         fields[3].cast<int>()};
        args.columns += columns;
    }
    return args;
}

void sampled(const py::tuple& window, Address x, bool relu, const py::list& parts, Address z,
             Address statistics, int threads) {
    hwnas::SampledArgs args = sampled_args(window, x, relu, parts, threads);
    args.z = output(z);
    args.statistics = output(statistics);
    check_given(args.window.images, {{"z", z}});
    const py::gil_scoped_release release;
    hwnas::sampled(args);
}

void sampled_backward(const py::tuple& window, Address x, bool relu, const py::list& parts,
                      const py::tuple& up, Address dx, bool is_added, int threads) {
    const hwnas::SampledArgs forward = sampled_args(window, x, relu, parts, threads);
    const hwnas::SampledBackwardArgs args{
        forward, upstream_from(up, forward.columns, pixels_of(forward.window)), output(dx),
        is_added};
    const py::gil_scoped_release release;
    hwnas::sampled_backward(args);
}

}  // namespace

namespace hwnas_bindings {

void bind_conv(py::module_& m) {
    m.def("pointwise", &pointwise, py::arg("inputs"), py::arg("relu"), py::arg("pixels"),
          py::arg("columns"), py::arg("weight"), py::arg("z"), py::arg("statistics"),
          py::arg("threads"), "1x1 convolution of one input or several.");
    m.def("pointwise_backward", &pointwise_backward, py::arg("inputs"), py::arg("relu"),
          py::arg("pixels"), py::arg("columns"), py::arg("weight"), py::arg("up"),
          py::arg("dweight"), py::arg("threads"), "Gradients of pointwise.");
    m.def("dense", &dense, py::arg("window"), py::arg("x"), py::arg("relu"), py::arg("columns"),
          py::arg("weight"), py::arg("z"), py::arg("statistics"), py::arg("threads"),
          "k x k convolution.");
    m.def("dense_backward", &dense_backward, py::arg("window"), py::arg("x"), py::arg("relu"),
          py::arg("columns"), py::arg("weight"), py::arg("up"), py::arg("dweight"), py::arg("dx"),
          py::arg("is_added"), py::arg("threads"), "Gradients of dense.");
    m.def("sampled", &sampled, py::arg("window"), py::arg("x"), py::arg("relu"), py::arg("parts"),
          py::arg("z"), py::arg("statistics"), py::arg("threads"),
          "1x1 convolutions of stride s, side by side.");
    m.def("sampled_backward", &sampled_backward, py::arg("window"), py::arg("x"), py::arg("relu"),
          py::arg("parts"), py::arg("up"), py::arg("dx"), py::arg("is_added"), py::arg("threads"),
          "Gradients of sampled.");
}

}  // namespace hwnas_bindings
