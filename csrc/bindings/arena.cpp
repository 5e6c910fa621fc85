// Tensors in the arena, handed to Python as DLPack capsules (https://dmlc.github.io/dlpack).
#include "cpu/arena.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "bindings/bind.h"

namespace py = pybind11;

namespace {

// The part of DLPack's ABI (version 0) that a CPU tensor needs.
struct DLDevice {
    std::int32_t device_type;
    std::int32_t device_id;
};

struct DLDataType {
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;
};

struct DLTensor {
    void* data;
    DLDevice device;
    std::int32_t ndim;
    DLDataType dtype;
    std::int64_t* shape;
    std::int64_t* strides;
    std::uint64_t byte_offset;
};

struct DLManagedTensor {
    DLTensor dl_tensor;
    void* manager_ctx;
    void (*deleter)(DLManagedTensor*);
};

constexpr std::int32_t kCpu = 1;
constexpr std::uint8_t kUnsigned = 1;
constexpr std::uint8_t kFloat = 2;
constexpr int kMostDimensions = 5;

struct Block {
    DLManagedTensor managed;
    std::int64_t shape[kMostDimensions];
    std::int64_t strides[kMostDimensions];
};

void release(DLManagedTensor* managed) {
    hwnas::arena_give(managed->dl_tensor.data);
    delete static_cast<Block*>(managed->manager_ctx);
}

void release_unused(PyObject* capsule) {
    if (PyCapsule_IsValid(capsule, "dltensor") != 0) {
        auto* const managed =
            static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
        managed->deleter(managed);
    }
}

// Images (four dimensions) get NHWC strides, everything else C order.
py::object arena_tensor(const py::tuple& shape, bool is_bytes) {
    auto block = std::make_unique<Block>();
    const auto rank = static_cast<int>(shape.size());
    if (rank > kMostDimensions) {
        throw std::invalid_argument("a tensor has at most " + std::to_string(kMostDimensions) +
                                    " dimensions, got " + std::to_string(rank));
    }
    std::int64_t size = 1;
    for (int i = 0; i < rank; ++i) {
        block->shape[i] = shape[static_cast<std::size_t>(i)].cast<std::int64_t>();
        if (block->shape[i] < 0) {
            throw std::invalid_argument("a side is negative: " + std::to_string(block->shape[i]));
        }
    }
    static constexpr int kImage[] = {1, 3, 2, 0};  // innermost first
    for (int i = 0; i < rank; ++i) {
        const int axis = rank == 4 ? kImage[i] : rank - 1 - i;
        block->strides[axis] = size;
        if (__builtin_mul_overflow(size, block->shape[axis], &size)) {
            throw std::bad_alloc();
        }
    }
    const std::int64_t width = is_bytes ? 1 : 4;
    if (size > PTRDIFF_MAX / 8) {
        throw std::bad_alloc();
    }
    DLTensor& tensor = block->managed.dl_tensor;
    tensor.data = hwnas::arena_take(static_cast<std::size_t>(size * width));
    tensor.device = {kCpu, 0};
    tensor.ndim = rank;
    tensor.dtype = {is_bytes ? kUnsigned : kFloat, static_cast<std::uint8_t>(8 * width), 1};
    tensor.shape = block->shape;
    tensor.strides = block->strides;
    tensor.byte_offset = 0;
    block->managed.deleter = &release;
    block->managed.manager_ctx = block.get();
    PyObject* const capsule = PyCapsule_New(&block->managed, "dltensor", &release_unused);
    if (capsule == nullptr) {
        hwnas::arena_give(tensor.data);
        throw py::error_already_set();
    }
    block.release();
    return py::reinterpret_steal<py::object>(capsule);
}

}  // namespace

namespace hwnas_bindings {

void bind_arena(py::module_& m) {
    m.def("arena_tensor", &arena_tensor, py::arg("shape"), py::arg("is_bytes") = false,
          "DLPack capsule of an uninitialised float32 (or uint8) tensor.");
    m.def(
        "arena_state",
        [] {
            const hwnas::ArenaState state = hwnas::arena_state();
            py::dict result;
            result["in_use"] = state.in_use;
            result["cached"] = state.cached;
            result["peak"] = state.peak;
            return result;
        },
        "Bytes in use, kept, and the most in use since arena_reset_peak().");
    m.def("arena_reset_peak", &hwnas::arena_reset_peak, "Start a new peak.");
    m.def("arena_trim", &hwnas::arena_trim, "Return kept blocks to the system.");
    m.def("arena_poison", &hwnas::arena_poison, py::arg("on"),
          "Fill every block with NaN before it is handed out.");
}

}  // namespace hwnas_bindings
