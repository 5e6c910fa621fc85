#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <exception>
#include <optional>
#include <string>

#include "bindings/bind.h"
#include "cpu/isa.h"
#include "cpu/isa_choice.h"

namespace py = pybind11;

namespace {

hwnas::Isa level_named(const std::string& name) {
    for (const hwnas::Isa level : {hwnas::Isa::v2, hwnas::Isa::v3, hwnas::Isa::v4}) {
        if (name == hwnas::isa_name(level)) {
            return level;
        }
    }
    return hwnas::Isa::plain;
}

// Whatever kernel runs first, a wrong HWNAS_ISA is the user's error and not a bug.
void translate(std::exception_ptr thrown) {
    try {
        if (thrown) {
            std::rethrow_exception(thrown);
        }
    } catch (const hwnas::UnusableIsa& error) {
        const py::object type = py::module_::import("hwnas.errors").attr("UserInputError");
        PyErr_SetObject(type.ptr(), py::make_tuple(error.what(), error.hint).ptr());
    }
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() = "Compiled core of hwnas: kernels, latency sums, statistics of timings.";
    py::register_local_exception_translator(&translate);
    m.def(
        "isa", [] { return hwnas::isa_name(hwnas::isa()); },
        "The instruction set that kernels run with: v2, v3, v4 or plain.");
    m.def(
        "best_isa", [] { return hwnas::isa_name(hwnas::best_isa()); },
        "The best that this processor and its operating system can run.");
    m.def(
        "choose_isa",
        [](const std::optional<std::string>& asked, const std::string& best) {
            return hwnas::isa_name(
                hwnas::choose_isa(asked ? asked->c_str() : nullptr, level_named(best)));
        },
        py::arg("asked"), py::arg("best"),
        "What HWNAS_ISA=asked would choose on a processor that can run `best`.");
    hwnas_bindings::bind_latency(m);
    hwnas_bindings::bind_arena(m);
    hwnas_bindings::bind_rnn_cell(m);
    hwnas_bindings::bind_separable(m);
    hwnas_bindings::bind_combine(m);
    hwnas_bindings::bind_pool(m);
    hwnas_bindings::bind_conv(m);
    hwnas_bindings::bind_cells(m);
    hwnas_bindings::bind_tfrecord(m);
}
