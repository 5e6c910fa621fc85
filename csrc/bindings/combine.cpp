// The epilogue of fused ops: the gated sum of branches, its sums, a branch that does nothing.
#include "cpu/kernels/combine.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <vector>

#include "bindings/bind.h"

namespace py = pybind11;

namespace {

using hwnas_bindings::Address;
using hwnas_bindings::check_given;
using hwnas_bindings::input;
using hwnas_bindings::output;

// What both directions read: a tensor, perhaps a norm, for each branch.
struct Branches {
    std::vector<const float*> zs;
    std::vector<hwnas::Norm> norms;

    Branches(const py::list& addresses, const py::list& packed, std::int64_t channels) {
        for (const py::handle each : addresses) {
            zs.push_back(input(each.cast<Address>()));
        }
        for (const py::handle each : packed) {
            norms.push_back(hwnas_bindings::norm_from(
                py::reinterpret_borrow<py::object>(each), channels));
        }
        hwnas_bindings::check_range("branches", size(), 1);
        hwnas_bindings::check_count("norms", norms.size(), zs.size());
    }

    int size() const { return static_cast<int>(zs.size()); }
};

void check_sizes(std::int64_t pixels, int channels, int threads) {
    hwnas_bindings::check_range("pixels", pixels, 0, INT64_MAX);
    hwnas_bindings::check_range("channels", channels, 1);
    hwnas_bindings::check_range("threads", threads, 1);
}

void combine(const py::list& zs, const py::list& norms, const std::vector<float>& gates, bool relu,
             std::int64_t pixels, int channels, Address y, int threads) {
    const Branches branches(zs, norms, channels);
    check_sizes(pixels, channels, threads);
    hwnas_bindings::check_count("gates", gates.size(), branches.zs.size());
    for (const float* const z : branches.zs) {
        check_given(pixels, {{"z", reinterpret_cast<Address>(z)}, {"y", y}});
    }
    const hwnas::CombineArgs args{branches.zs.data(), branches.norms.data(), gates.data(),
                                  branches.size(),    relu,                  pixels,
                                  channels,           output(y),             threads};
    const py::gil_scoped_release release;
    hwnas::combine(args);
}

void combine_backward(Address gradient, const py::list& zs, const py::list& norms, bool relu,
                      std::int64_t pixels, int channels, Address sums, int threads) {
    const Branches branches(zs, norms, channels);
    check_sizes(pixels, channels, threads);
    check_given(pixels, {{"gradient", gradient}});
    check_given(channels, {{"sums", sums}});
    const hwnas::CombineBackwardArgs args{
        input(gradient), branches.zs.data(), branches.norms.data(), branches.size(), relu,
        pixels,          channels,           output(sums),          threads};
    const py::gil_scoped_release release;
    hwnas::combine_backward(args);
}

void accumulate(const py::tuple& up, std::int64_t pixels, int channels, Address dx,
                bool is_added, int threads) {
    check_sizes(pixels, channels, threads);
    check_given(pixels, {{"dx", dx}});
    const hwnas::AccumulateArgs args{hwnas_bindings::upstream_from(up, channels, pixels),
                                     pixels, channels, output(dx), is_added, threads};
    const py::gil_scoped_release release;
    hwnas::accumulate(args);
}

}  // namespace

namespace hwnas_bindings {

void bind_combine(py::module_& m) {
    m.def("combine", &combine, py::arg("zs"), py::arg("norms"), py::arg("gates"), py::arg("relu"),
          py::arg("pixels"), py::arg("channels"), py::arg("y"), py::arg("threads"),
          "Gated sum of normalised branches.");
    m.def("combine_backward", &combine_backward, py::arg("gradient"), py::arg("zs"),
          py::arg("norms"), py::arg("relu"), py::arg("pixels"), py::arg("channels"),
          py::arg("sums"), py::arg("threads"), "Sums for the gradients of norms and gates.");
    m.def("accumulate", &accumulate, py::arg("up"), py::arg("pixels"), py::arg("channels"),
          py::arg("dx"), py::arg("is_added"), py::arg("threads"),
          "Write or add the gradient of a branch that does nothing.");
}

}  // namespace hwnas_bindings
