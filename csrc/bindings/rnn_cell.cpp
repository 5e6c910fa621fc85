#include "cpu/kernels/rnn_cell.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <iterator>
#include <memory>
#include <vector>

#include "bindings/bind.h"
#include "cpu/arena.h"

namespace py = pybind11;

namespace {

using hwnas_bindings::Address;
using hwnas_bindings::input;
using hwnas_bindings::output;
using Lists = std::vector<std::vector<std::int32_t>>;
using Addresses = std::vector<Address>;

struct Give {
    void operator()(float* block) const noexcept { hwnas::arena_give(block); }
};

std::unique_ptr<float, Give> scratch(std::int64_t floats) {
    const auto bytes = static_cast<std::size_t>(floats) * sizeof(float);
    return std::unique_ptr<float, Give>(static_cast<float*>(hwnas::arena_take(bytes)));
}

void check_call(const py::tuple& operands, std::size_t operand_count, const py::tuple& results,
                std::size_t result_count, int threads) {
    hwnas_bindings::check_count("operands", operands.size(), operand_count);
    hwnas_bindings::check_count("results", results.size(), result_count);
    hwnas_bindings::check_range("threads", threads, 1);
}

template <class Pointer>
std::vector<Pointer> pointers(const Addresses& addresses) {
    std::vector<Pointer> result;
    for (const Address each : addresses) {
        result.push_back(reinterpret_cast<Pointer>(each));
    }
    return result;
}

// (steps, batch, input, hidden)
hwnas::RnnSizes sizes_from(const py::tuple& sizes, const Addresses& edges) {
    static constexpr const char* kNames[] = {"steps", "batch", "input", "hidden"};
    hwnas_bindings::check_count("sizes", sizes.size(), std::size(kNames));
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        hwnas_bindings::check_range(kNames[i], sizes[i].cast<std::int64_t>(), i < 2 ? 0 : 1);
    }
    return {sizes[0].cast<std::int64_t>(), sizes[1].cast<std::int64_t>(),
            sizes[2].cast<std::int64_t>(), sizes[3].cast<std::int64_t>(),
            static_cast<std::int64_t>(edges.size())};
}

// operands: x, h0, w_input, w_hidden; results: output, state, saved.
void forward(const py::tuple& operands, const Addresses& edges, const py::tuple& results,
             const py::tuple& sizes, const Lists& previous, const Lists& activations,
             const Lists& edge_index, bool carry_last, int threads) {
    const hwnas::RnnSchedule schedule(sizes_from(sizes, edges), previous, activations, edge_index,
                                      carry_last);
    check_call(operands, 4, results, 3, threads);
    const auto matrices = pointers<const float*>(edges);
    hwnas::RnnForwardArgs args{};
    args.plan = schedule.plan();
    args.x = input(operands[0].cast<Address>());
    args.h0 = input(operands[1].cast<Address>());
    args.w_input = input(operands[2].cast<Address>());
    args.w_hidden = input(operands[3].cast<Address>());
    args.edges = matrices.data();
    args.output = output(results[0].cast<Address>());
    args.state = output(results[1].cast<Address>());
    args.saved = output(results[2].cast<Address>());
    args.threads = threads;
    const py::gil_scoped_release release;
    const auto memory = scratch(hwnas::rnn_forward_scratch(args.plan));
    args.scratch = memory.get();
    hwnas::rnn_forward(args);
}

// operands: d_output, d_state, saved, x, w_input, w_hidden; results: dx, dh0, dw_input, dw_hidden.
void backward(const py::tuple& operands, const Addresses& edges, const py::tuple& results,
              const Addresses& d_edges, const py::tuple& sizes, const Lists& previous,
              const Lists& activations, const Lists& edge_index, bool carry_last, int threads) {
    const hwnas::RnnSchedule schedule(sizes_from(sizes, edges), previous, activations, edge_index,
                                      carry_last);
    check_call(operands, 6, results, 4, threads);
    hwnas_bindings::check_count("gradients of edges", d_edges.size(), edges.size());
    const auto matrices = pointers<const float*>(edges);
    const auto gradients = pointers<float*>(d_edges);
    hwnas::RnnBackwardArgs args{};
    args.plan = schedule.plan();
    args.d_output = input(operands[0].cast<Address>());
    args.d_state = input(operands[1].cast<Address>());
    args.saved = input(operands[2].cast<Address>());
    args.x = input(operands[3].cast<Address>());
    args.w_input = input(operands[4].cast<Address>());
    args.w_hidden = input(operands[5].cast<Address>());
    args.edges = matrices.data();
    args.dx = output(results[0].cast<Address>());
    args.dh0 = output(results[1].cast<Address>());
    args.dw_input = output(results[2].cast<Address>());
    args.dw_hidden = output(results[3].cast<Address>());
    args.d_edges = gradients.data();
    args.threads = threads;
    const py::gil_scoped_release release;
    const auto memory = scratch(hwnas::rnn_backward_scratch(args.plan, threads));
    args.scratch = memory.get();
    hwnas::rnn_backward(args);
}

}  // namespace

namespace hwnas_bindings {

void bind_rnn_cell(py::module_& m) {
    m.def("rnn_plane", &hwnas::rnn_plane, py::arg("rows"), py::arg("features"),
          "Floats of one matrix in panels.");
    m.def("rnn_cell", &forward, "Forward pass; see csrc/cpu/kernels/rnn_cell.h.");
    m.def("rnn_cell_backward", &backward, "Backward pass; see csrc/cpu/kernels/rnn_cell.h.");
}

}  // namespace hwnas_bindings
