// The elementwise half of a recurrent node: gates, activation and highway sum, forward and backward.
// The products with the weights are cuBLAS's. Which activation a cell's rows take and which node they
// read is data.
#include "cuda/api.h"

#include <algorithm>
#include <stdexcept>

#include "cuda/pack.cuh"

namespace hwnas_cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMostBlocks = 2048;
constexpr std::int64_t kMostItems = std::int64_t{1} << 30;

// Channels of a thread at a time. Rows that are not made of whole packs are taken one by one:
// neighbours still read neighbours.
template <typename T, bool kWide>
constexpr int kOwn = kWide ? Raw<T>::kSize : 1;

enum Activation { kTanh, kRelu, kIdentity, kSigmoid };

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ __forceinline__ float activated(float x, int activation) {
    switch (activation) {
        case kTanh: return tanhf(x);
        case kRelu: return x <= 0.0f ? 0.0f : x;
        case kSigmoid: return sigmoid(x);
        default: return x;
    }
}

// The derivative of the activation where its value is y.
__device__ __forceinline__ float slope(float y, int activation) {
    switch (activation) {
        case kTanh: return 1.0f - y * y;
        case kRelu: return y <= 0.0f ? 0.0f : 1.0f;
        case kSigmoid: return y * (1.0f - y);
        default: return 1.0f;
    }
}

struct Where {
    int row;              // of [rows, hidden]
    std::int64_t source;  // row of the states that it reads
    int channel, activation;
};

__device__ __forceinline__ Where place(const Cells& cells, int item, int size) {
    const int packs = (cells.hidden + size - 1) / size;
    const int row = item / packs;
    const int channel = item % packs * size;
    const int cell = row / cells.rows;
    return {row, cells.source[cell] * cells.slot_rows + row, channel, cells.activation[cell]};
}

template <typename T, bool kWide>
__global__ void __launch_bounds__(kThreads, 5)
    rnn_node_kernel(Cells cells, int items, const T* __restrict__ pre,
                    const T* __restrict__ states, T* __restrict__ gate, T* __restrict__ node,
                    T* __restrict__ target) {
    constexpr int kSize = kOwn<T, kWide>;
    const int step = static_cast<int>(gridDim.x) * kThreads;
#pragma unroll 1
    for (int item = static_cast<int>(blockIdx.x * kThreads + threadIdx.x); item < items;
         item += step) {
        const Where at = place(cells, item, kSize);
        const std::int64_t offset = static_cast<std::int64_t>(at.row) * cells.hidden + at.channel;
        const T* const from = pre + 2 * offset - at.channel;
        Raw<T> c;
        Raw<T> n;
        Raw<T> h;
        c.template load<kWide>(from, kSize);
        n.template load<kWide>(from + cells.hidden, kSize);
        h.template load<kWide>(states + at.source * cells.hidden + at.channel, kSize);
#pragma unroll
        for (int i = 0; i < kSize; ++i) {
            const float open = sigmoid(c.get(i));
            const float value = activated(n.get(i), at.activation);
            c.set(i, open);
            n.set(i, value);
            h.set(i, open * value + (1.0f - open) * h.get(i));
        }
        c.template store<kWide>(gate + offset, kSize);
        n.template store<kWide>(node + offset, kSize);
        h.template store<kWide>(target + offset, kSize);
    }
}

template <typename T, bool kWide>
__global__ void __launch_bounds__(kThreads, 5)
    rnn_node_backward_kernel(Cells cells, int items, const T* __restrict__ d_target,
                             const T* __restrict__ gate, const T* __restrict__ node,
                             const T* __restrict__ states, T* __restrict__ d_states,
                             T* __restrict__ d_pre) {
    constexpr int kSize = kOwn<T, kWide>;
    const int step = static_cast<int>(gridDim.x) * kThreads;
#pragma unroll 1
    for (int item = static_cast<int>(blockIdx.x * kThreads + threadIdx.x); item < items;
         item += step) {
        const Where at = place(cells, item, kSize);
        const std::int64_t offset = static_cast<std::int64_t>(at.row) * cells.hidden + at.channel;
        const std::int64_t source = at.source * cells.hidden + at.channel;
        T* const to = d_pre + 2 * offset - at.channel;
        Raw<T> g;
        Raw<T> c;
        Raw<T> n;
        Raw<T> h;
        Raw<T> d_h;
        g.template load<kWide>(d_target + offset, kSize);
        c.template load<kWide>(gate + offset, kSize);
        n.template load<kWide>(node + offset, kSize);
        h.template load<kWide>(states + source, kSize);
        d_h.template load<kWide>(d_states + source, kSize);
#pragma unroll
        for (int i = 0; i < kSize; ++i) {
            const float passed = g.get(i) * c.get(i);
            const float kept = g.get(i) * (1.0f - c.get(i));
            const float value = n.get(i);
            c.set(i, passed * (value - h.get(i)) * (1.0f - c.get(i)));
            n.set(i, passed * slope(value, at.activation));
            d_h.set(i, d_h.get(i) + kept);
        }
        c.template store<kWide>(to, kSize);
        n.template store<kWide>(to + cells.hidden, kSize);
        d_h.template store<kWide>(d_states + source, kSize);
    }
}

int items_of(const Cells& cells, int size) {
    const std::int64_t rows = static_cast<std::int64_t>(cells.count) * cells.rows;
    const std::int64_t items = rows * ((cells.hidden + size - 1) / size);
    if (items > kMostItems) {
        throw std::invalid_argument("the cells' states have more than 2^30 packs");
    }
    return static_cast<int>(items);
}

dim3 grid_of(int items) {
    return dim3(static_cast<unsigned>(std::min(kMostBlocks, (items + kThreads - 1) / kThreads)));
}

template <typename T>
void run(const Cells& cells, const void* pre, const void* states, void* gate, void* node,
         void* target, void* stream, bool wide) {
    const int items = items_of(cells, wide ? kOwn<T, true> : 1);
    launch(wide ? rnn_node_kernel<T, true> : rnn_node_kernel<T, false>, grid_of(items), kThreads, 0,
           stream, cells, items, static_cast<const T*>(pre), static_cast<const T*>(states),
           static_cast<T*>(gate), static_cast<T*>(node), static_cast<T*>(target));
}

template <typename T>
void run_backward(const Cells& cells, const void* d_target, const void* gate, const void* node,
                  const void* states, void* d_states, void* d_pre, void* stream, bool wide) {
    const int items = items_of(cells, wide ? kOwn<T, true> : 1);
    launch(wide ? rnn_node_backward_kernel<T, true> : rnn_node_backward_kernel<T, false>,
           grid_of(items), kThreads, 0, stream, cells, items, static_cast<const T*>(d_target),
           static_cast<const T*>(gate), static_cast<const T*>(node), static_cast<const T*>(states),
           static_cast<T*>(d_states), static_cast<T*>(d_pre));
}

}  // namespace

void rnn_node(Type type, const Cells& cells, const void* pre, const void* states, void* gate,
              void* node, void* target, void* stream) {
    const bool wide = is_wide(type, cells.hidden, pre, states, gate, node, target);
    const auto call = [&](auto run_as) {
        run_as(cells, pre, states, gate, node, target, stream, wide);
    };
    switch (type) {
        case Type::kFloat: return call(run<float>);
        case Type::kHalf: return call(run<__half>);
        case Type::kBfloat16: return call(run<__nv_bfloat16>);
    }
}

void rnn_node_backward(Type type, const Cells& cells, const void* d_target, const void* gate,
                       const void* node, const void* states, void* d_states, void* d_pre,
                       void* stream) {
    const bool wide = is_wide(type, cells.hidden, d_target, gate, node, states, d_states, d_pre);
    const auto call = [&](auto run_as) {
        run_as(cells, d_target, gate, node, states, d_states, d_pre, stream, wide);
    };
    switch (type) {
        case Type::kFloat: return call(run_backward<float>);
        case Type::kHalf: return call(run_backward<__half>);
        case Type::kBfloat16: return call(run_backward<__nv_bfloat16>);
    }
}

}  // namespace hwnas_cuda
