// hwnas._cuda: the launch functions of csrc/cuda for Python. Addresses cross the boundary as
// integers (Tensor.data_ptr()), 0 is null; hwnas/kernels/cuda.py has checked dtypes, layouts and
// shapes. The host shim's tests build this very file under another name.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/api.h"

#ifdef HWNAS_HOST_SHIM
#include "host_shim/selftest.h"
#endif

#ifndef HWNAS_CUDA_MODULE
#define HWNAS_CUDA_MODULE _cuda
#endif

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;
using hwnas_cuda::Branches;
using hwnas_cuda::Cells;
using hwnas_cuda::Norm;
using hwnas_cuda::Shape;
using hwnas_cuda::Type;
using hwnas_cuda::Upstream;

void* at(Address address) { return reinterpret_cast<void*>(address); }
float* floats(Address address) { return reinterpret_cast<float*>(address); }

Type type_from(const std::string& name) {
    if (name == "float32") {
        return Type::kFloat;
    }
    if (name == "float16") {
        return Type::kHalf;
    }
    if (name == "bfloat16") {
        return Type::kBfloat16;
    }
    throw std::invalid_argument("dtype must be float32, float16 or bfloat16, got " + name);
}

// (statistics [2, C], gamma, beta, epsilon, is_batch), or None.
Norm norm_from(const py::handle& packed, int channels) {
    Norm norm{};
    if (packed.is_none()) {
        return norm;
    }
    const auto fields = py::reinterpret_borrow<py::tuple>(packed);
    norm.mean = floats(fields[0].cast<Address>());
    norm.variance = norm.mean + channels;
    norm.gamma = floats(fields[1].cast<Address>());
    norm.beta = floats(fields[2].cast<Address>());
    norm.epsilon = fields[3].cast<float>();
    norm.is_batch = fields[4].cast<bool>() ? 1 : 0;
    return norm;
}

// (gradient, z, norm or None, sums, address of the gate, relu); count is N * H * W of z.
Upstream upstream_from(const py::tuple& fields, int channels, std::int64_t count) {
    Upstream up{};
    up.gradient = at(fields[0].cast<Address>());
    up.z = at(fields[1].cast<Address>());
    up.norm = norm_from(fields[2], channels);
    up.sums = floats(fields[3].cast<Address>());
    up.gate = floats(fields[4].cast<Address>());
    up.relu = fields[5].cast<bool>() ? 1 : 0;
    up.count = static_cast<float>(count);
    return up;
}

// (n, c, h, w, d, p, q, kernel, stride, dilation).
Shape shape_from(const py::tuple& sizes) {
    const auto side = [&](std::size_t i) { return sizes[i].cast<int>(); };
    return {sizes[0].cast<std::int64_t>(), side(1), side(2), side(3), side(4), side(5), side(6),
            side(7), side(8), side(9)};
}

Branches branches_from(const py::list& zs, const py::list& norms, int channels) {
    Branches branches{};
    if (zs.size() > hwnas_cuda::kMostBranches || zs.size() != norms.size()) {
        throw std::invalid_argument("a launch takes at most " +
                                    std::to_string(hwnas_cuda::kMostBranches) + " branches, got " +
                                    std::to_string(zs.size()));
    }
    branches.count = static_cast<int>(zs.size());
    for (std::size_t b = 0; b < zs.size(); ++b) {
        branches.z[b] = at(zs[b].cast<Address>());
        branches.norm[b] = norm_from(norms[b], channels);
    }
    return branches;
}

// (rows, hidden, rows of a slot, sources, activations).
Cells cells_from(const py::tuple& fields) {
    Cells cells{};
    cells.rows = fields[0].cast<int>();
    cells.hidden = fields[1].cast<int>();
    cells.slot_rows = fields[2].cast<std::int64_t>();
    const auto sources = fields[3].cast<py::list>();
    const auto activations = fields[4].cast<py::list>();
    if (sources.size() > hwnas_cuda::kMostCells || sources.size() != activations.size()) {
        throw std::invalid_argument("a launch takes at most " +
                                    std::to_string(hwnas_cuda::kMostCells) + " cells, got " +
                                    std::to_string(sources.size()));
    }
    cells.count = static_cast<int>(sources.size());
    for (std::size_t m = 0; m < sources.size(); ++m) {
        cells.source[m] = sources[m].cast<unsigned char>();
        cells.activation[m] = activations[m].cast<unsigned char>();
    }
    return cells;
}

void bind_separable(py::module_& m) {
    m.def("separable_workspace", [](const std::string& type, const py::tuple& shape) {
        return hwnas_cuda::separable_workspace(type_from(type), shape_from(shape));
    });
    m.def("separable_backward_workspace", [](const std::string& type, const py::tuple& shape) {
        return hwnas_cuda::separable_backward_workspace(type_from(type), shape_from(shape));
    });
    m.def("separable", [](const std::string& type, const py::tuple& sizes, Address x,
                          const py::object& norm, Address depthwise, Address pointwise, Address z,
                          Address statistics, Address workspace, Address stream) {
        const Shape shape = shape_from(sizes);
        hwnas_cuda::separable(type_from(type), shape, at(x), norm_from(norm, shape.c),
                              at(depthwise), at(pointwise), at(z), floats(statistics),
                              at(workspace), at(stream));
    });
    m.def("separable_backward",
          [](const std::string& type, const py::tuple& sizes, const py::tuple& up, Address x,
             const py::object& norm, Address depthwise, Address pointwise, Address dx,
             bool accumulate, Address d_depthwise, Address d_pointwise, Address sums,
             Address workspace, Address stream) {
              const Shape shape = shape_from(sizes);
              hwnas_cuda::separable_backward(
                  type_from(type), shape,
                  upstream_from(up, shape.d, shape.n * shape.p * shape.q), at(x),
                  norm_from(norm, shape.c), at(depthwise), at(pointwise), at(dx), accumulate,
                  at(d_depthwise), at(d_pointwise), floats(sums), at(workspace), at(stream));
          });
}

void bind_combine(py::module_& m) {
    m.attr("MOST_BRANCHES") = hwnas_cuda::kMostBranches;
    m.def("combine_backward_workspace", &hwnas_cuda::combine_backward_workspace);
    m.def("combine", [](const std::string& type, std::int64_t pixels, int channels,
                        const py::list& zs, const py::list& norms, Address gates, bool relu,
                        Address y, bool accumulate, Address stream) {
        hwnas_cuda::combine(type_from(type), pixels, channels, branches_from(zs, norms, channels),
                            floats(gates), relu, at(y), accumulate, at(stream));
    });
    m.def("combine_backward",
          [](const std::string& type, std::int64_t pixels, int channels, Address gradient,
             const py::list& zs, const py::list& norms, bool relu, Address sums, Address workspace,
             Address stream) {
              hwnas_cuda::combine_backward(type_from(type), pixels, channels, at(gradient),
                                           branches_from(zs, norms, channels), relu, floats(sums),
                                           at(workspace), at(stream));
          });
    m.def("accumulate", [](const std::string& type, std::int64_t pixels, int channels,
                           const py::tuple& up, Address dx, bool accumulate, Address stream) {
        hwnas_cuda::accumulate(type_from(type), pixels, channels,
                               upstream_from(up, channels, pixels), at(dx), accumulate, at(stream));
    });
}

void bind_rnn(py::module_& m) {
    m.attr("MOST_CELLS") = hwnas_cuda::kMostCells;
    m.def("rnn_node", [](const std::string& type, const py::tuple& cells, Address pre,
                         Address states, Address gate, Address node, Address target,
                         Address stream) {
        hwnas_cuda::rnn_node(type_from(type), cells_from(cells), at(pre), at(states), at(gate),
                             at(node), at(target), at(stream));
    });
    m.def("rnn_node_backward",
          [](const std::string& type, const py::tuple& cells, Address d_target, Address gate,
             Address node, Address states, Address d_states, Address d_pre, Address stream) {
              hwnas_cuda::rnn_node_backward(type_from(type), cells_from(cells), at(d_target),
                                            at(gate), at(node), at(states), at(d_states),
                                            at(d_pre), at(stream));
          });
}

}  // namespace

PYBIND11_MODULE(HWNAS_CUDA_MODULE, m) {
    m.doc() = "CUDA kernels of hwnas.";
    m.def("device_problem", &hwnas_cuda::device_problem,
          "Why no kernel can run here, or None if one can.");
    bind_separable(m);
    bind_combine(m);
    bind_rnn(m);
#ifdef HWNAS_HOST_SHIM
    m.def("set_reversed", &hwnas_shim::set_reversed);
    m.def("provoke", &hwnas_shim::provoke);
    m.def("to_half_and_back", [](float x) { return __half2float(__float2half(x)); });
    m.def("to_bfloat16_and_back", [](float x) { return __bfloat162float(__float2bfloat16(x)); });
#endif
}
