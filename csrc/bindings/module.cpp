#include "bindings/bind.h"
#include "cpu/isa.h"

PYBIND11_MODULE(_core, m) {
    m.doc() = "Compiled core of hwnas: kernels, latency sums, statistics of timings.";
    m.def(
        "isa", [] { return hwnas::isa_name(hwnas::isa()); },
        "The instruction set that kernels run with: v2, v3, v4 or plain.");
    hwnas_bindings::bind_latency(m);
    hwnas_bindings::bind_arena(m);
    hwnas_bindings::bind_rnn_cell(m);
    hwnas_bindings::bind_separable(m);
    hwnas_bindings::bind_combine(m);
    hwnas_bindings::bind_pool(m);
    hwnas_bindings::bind_conv(m);
}
