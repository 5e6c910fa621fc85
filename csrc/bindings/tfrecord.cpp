// TFRecord files without TensorFlow.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "bindings/bind.h"
#include "cpu/tfrecord.h"

namespace py = pybind11;

namespace {

struct Bytes {
    const unsigned char* data;
    std::size_t size;
};

Bytes bytes_of(const py::buffer_info& info) {
    if (info.ndim != 1 || info.itemsize != 1) {
        throw std::invalid_argument("expected a buffer of bytes");
    }
    return {static_cast<const unsigned char*>(info.ptr), static_cast<std::size_t>(info.size)};
}

std::uint32_t masked_crc32c(const py::buffer& buffer) {
    const py::buffer_info info = buffer.request();
    const Bytes bytes = bytes_of(info);
    return hwnas::masked_crc(hwnas::crc32c(bytes.data, bytes.size));
}

py::array_t<std::int64_t> tfrecord_spans(const py::buffer& buffer) {
    const py::buffer_info info = buffer.request();
    const Bytes bytes = bytes_of(info);
    std::vector<hwnas::RecordSpan> spans;
    {
        const py::gil_scoped_release unlocked;
        spans = hwnas::find_records(bytes.data, bytes.size);
    }
    py::array_t<std::int64_t> result({static_cast<py::ssize_t>(spans.size()), py::ssize_t{2}});
    std::int64_t* out = result.mutable_data();
    for (const hwnas::RecordSpan& span : spans) {
        *out++ = span.offset;
        *out++ = span.size;
    }
    return result;
}

}  // namespace

namespace hwnas_bindings {

void bind_tfrecord(py::module_& m) {
    m.def("masked_crc32c", &masked_crc32c, py::arg("data"),
          "CRC-32C as TFRecord stores it; see hwnas/_core.pyi.");
    m.def("tfrecord_spans", &tfrecord_spans, py::arg("file"),
          "Where the records of a TFRecord file are; see hwnas/_core.pyi.");
}

}  // namespace hwnas_bindings
