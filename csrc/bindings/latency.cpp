// Sums over latency tables and statistics of timings.
//
// Operands are taken without a lossy cast (an int64 id is refused rather than cut to int32), and a
// std::invalid_argument reaches Python as ValueError with the operand and the value in its message.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "bindings/bind.h"
#include "cpu/latency_sum.h"
#include "cpu/timing_stats.h"

namespace py = pybind11;

namespace {

template <typename T>
using Vector = py::array_t<T, py::array::c_style>;

void require_vector(const char* name, const py::array& operand) {
    if (operand.ndim() != 1) {
        throw std::invalid_argument(std::string(name) + " has " +
                                    std::to_string(operand.ndim()) + " dimensions, expected 1");
    }
}

void require_length(const char* name, const py::array& operand, py::ssize_t expected) {
    require_vector(name, operand);
    if (operand.shape(0) != expected) {
        throw std::invalid_argument(std::string(name) + " has " +
                                    std::to_string(operand.shape(0)) + " entries, but samples has " +
                                    std::to_string(expected));
    }
}

Vector<double> sum_latencies(const Vector<double>& table, const Vector<std::int32_t>& kernel_ids,
                             const Vector<std::int64_t>& offsets) {
    require_vector("table", table);
    require_vector("kernel_ids", kernel_ids);
    require_vector("offsets", offsets);
    if (offsets.shape(0) < 1) {
        throw std::invalid_argument("offsets is empty: it holds one entry more than there are "
                                    "architectures");
    }
    const auto architectures = static_cast<std::size_t>(offsets.shape(0) - 1);
    Vector<double> result(static_cast<py::ssize_t>(architectures));
    double* const out = result.mutable_data();
    {
        const py::gil_scoped_release unlocked;
        hwnas::check_segments(static_cast<std::size_t>(table.shape(0)), kernel_ids.data(),
                              static_cast<std::size_t>(kernel_ids.shape(0)), offsets.data(),
                              architectures);
        hwnas::sum_latencies(table.data(), kernel_ids.data(), offsets.data(), architectures, out);
    }
    return result;
}

py::dict timing_statistics(const Vector<double>& samples, const Vector<double>& anchor_before,
                           const Vector<double>& anchor_after, double tolerance,
                           double anchor_clean) {
    require_vector("samples", samples);
    require_length("anchor_before", anchor_before, samples.shape(0));
    require_length("anchor_after", anchor_after, samples.shape(0));
    hwnas::TimingStatistics found{};
    {
        const py::gil_scoped_release unlocked;
        found = hwnas::timing_statistics(samples.data(), anchor_before.data(), anchor_after.data(),
                                         static_cast<std::size_t>(samples.shape(0)), tolerance,
                                         anchor_clean);
    }
    py::dict result;
    result["anchor_clean"] = found.anchor_clean;
    result["accepted"] = found.accepted;
    result["minimum"] = found.minimum;
    result["median"] = found.median;
    result["p20"] = found.p20;
    result["p80"] = found.p80;
    return result;
}

}  // namespace

namespace hwnas_bindings {

void bind_latency(py::module_& m) {
    m.def("sum_latencies", &sum_latencies, py::arg("table"), py::arg("kernel_ids"),
          py::arg("offsets"), "Sum table entries per architecture; see hwnas/_core.pyi.");
    m.def("timing_statistics", &timing_statistics, py::arg("samples"), py::arg("anchor_before"),
          py::arg("anchor_after"), py::arg("tolerance"), py::arg("anchor_clean") = 0.0,
          "Summarise anchor-gated timings; see hwnas/_core.pyi.");
}

}  // namespace hwnas_bindings
