// NAS-Bench-101's cells: hashes, enumeration, distances.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/bind.h"
#include "cpu/cells.h"
#include "cpu/kernels/cell_hash.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

using hwnas::Cell;

void check_cell(int vertices, std::uint32_t edges) {
    if (vertices < 2 || vertices > hwnas::kCellVertices) {
        throw std::invalid_argument("a cell of " + std::to_string(vertices) +
                                    " vertices: 2 to 8 can be worked with");
    }
    if (edges >> (vertices * (vertices - 1) / 2) != 0) {
        throw std::invalid_argument("edges " + std::to_string(edges) + " name vertices beyond the " +
                                    std::to_string(vertices) + " of the cell");
    }
}

std::vector<Cell> cells_from(const Array<std::uint8_t>& vertices,
                             const Array<std::uint32_t>& edges, const Array<std::int8_t>& labels) {
    if (vertices.ndim() != 1 || edges.ndim() != 1 || labels.ndim() != 2 ||
        edges.shape(0) != vertices.shape(0) || labels.shape(0) != vertices.shape(0) ||
        labels.shape(1) != hwnas::kCellVertices) {
        throw std::invalid_argument("vertices [N], edges [N] and labels [N, 8] do not fit");
    }
    std::vector<Cell> cells(static_cast<std::size_t>(vertices.shape(0)));
    for (std::size_t i = 0; i < cells.size(); ++i) {
        check_cell(vertices.data()[i], edges.data()[i]);
        cells[i].vertices = static_cast<std::int8_t>(vertices.data()[i]);
        cells[i].edges = edges.data()[i];
        std::memcpy(cells[i].labels, labels.data() + i * hwnas::kCellVertices,
                    hwnas::kCellVertices);
    }
    return cells;
}

py::str cell_hash(std::uint32_t edges, const py::bytes& labels) {
    char* text = nullptr;
    py::ssize_t length = 0;
    if (PyBytes_AsStringAndSize(labels.ptr(), &text, &length) != 0) {
        throw py::error_already_set();
    }
    check_cell(static_cast<int>(length), edges);
    Cell cell{edges, static_cast<std::int8_t>(length), {}};
    std::memcpy(cell.labels, text, static_cast<std::size_t>(length));
    std::uint8_t digest[16];
    hwnas::cell_hashes({&cell, 1, digest});
    char hex[32];
    for (int i = 0; i < 16; ++i) {
        hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    return py::str(hex, 32);
}

Array<std::uint8_t> cell_hashes(const Array<std::uint8_t>& vertices,
                                const Array<std::uint32_t>& edges,
                                const Array<std::int8_t>& labels) {
    const std::vector<Cell> cells = cells_from(vertices, edges, labels);
    Array<std::uint8_t> digests({vertices.shape(0), py::ssize_t{16}});
    std::uint8_t* const out = digests.mutable_data();
    const py::gil_scoped_release unlocked;
    hwnas::cell_hashes({cells.data(), static_cast<std::int64_t>(cells.size()), out});
    return digests;
}

py::tuple enumerate_cells(int max_vertices, int max_edges, int ops) {
    std::vector<Cell> cells;
    {
        const py::gil_scoped_release unlocked;
        cells = hwnas::enumerate_cells(max_vertices, max_edges, ops);
    }
    const auto count = static_cast<py::ssize_t>(cells.size());
    Array<std::uint8_t> vertices(count);
    Array<std::uint32_t> edges(count);
    Array<std::int8_t> labels({count, py::ssize_t{hwnas::kCellVertices}});
    std::uint8_t* const vertices_out = vertices.mutable_data();
    std::uint32_t* const edges_out = edges.mutable_data();
    std::int8_t* const labels_out = labels.mutable_data();
    for (std::size_t i = 0; i < cells.size(); ++i) {
        vertices_out[i] = static_cast<std::uint8_t>(cells[i].vertices);
        edges_out[i] = cells[i].edges;
        std::memcpy(labels_out + i * hwnas::kCellVertices, cells[i].labels, hwnas::kCellVertices);
    }
    return py::make_tuple(vertices, edges, labels);
}

Array<std::uint8_t> cell_distances(const Array<std::uint8_t>& vertices,
                                   const Array<std::uint32_t>& edges,
                                   const Array<std::int8_t>& labels,
                                   const Array<std::int64_t>& pairs) {
    const std::vector<Cell> cells = cells_from(vertices, edges, labels);
    if (pairs.ndim() != 2 || pairs.shape(1) != 2) {
        throw std::invalid_argument("pairs must be [P, 2]");
    }
    const auto known = static_cast<std::int64_t>(cells.size());
    const std::int64_t* const pair = pairs.data();
    for (py::ssize_t i = 0; i < 2 * pairs.shape(0); ++i) {
        if (pair[i] < 0 || pair[i] >= known) {
            throw std::invalid_argument("pairs names cell " + std::to_string(pair[i]) + " of " +
                                        std::to_string(known));
        }
    }
    Array<std::uint8_t> distances(pairs.shape(0));
    std::uint8_t* const out = distances.mutable_data();
    const py::ssize_t count = pairs.shape(0);
    const py::gil_scoped_release unlocked;
    for (py::ssize_t i = 0; i < count; ++i) {
        out[i] = static_cast<std::uint8_t>(
            hwnas::cell_distance(cells[static_cast<std::size_t>(pair[2 * i])],
                                 cells[static_cast<std::size_t>(pair[2 * i + 1])]));
    }
    return distances;
}

}  // namespace

namespace hwnas_bindings {

void bind_cells(py::module_& m) {
    m.def("cell_hash", &cell_hash, py::arg("edges"), py::arg("labels"),
          "Hash one cell; see hwnas/_core.pyi.");
    m.def("cell_hashes", &cell_hashes, py::arg("vertices"), py::arg("edges"), py::arg("labels"),
          "Hash many cells; see hwnas/_core.pyi.");
    m.def("enumerate_cells", &enumerate_cells, py::arg("max_vertices"), py::arg("max_edges"),
          py::arg("ops"), "All cells that are not isomorphic; see hwnas/_core.pyi.");
    m.def("cell_distances", &cell_distances, py::arg("vertices"), py::arg("edges"),
          py::arg("labels"), py::arg("pairs"), "Edit distances of cells; see hwnas/_core.pyi.");
}

}  // namespace hwnas_bindings
