// The separable stage's gradient: tiles, workspace, and the two launches (separable_backward.cuh).
#include "cuda/separable_backward.cuh"

namespace hwnas_cuda {
namespace backward {
namespace {

// Blocks that share the tiles, where `rows` of blocks run beside each other.
int parts_for(std::int64_t tiles, int rows) {
    return static_cast<int>(std::min<std::int64_t>(tiles, std::max(1, kMostParts / rows)));
}

std::int64_t aligned(std::int64_t bytes) { return (bytes + 127) / 128 * 128; }

template <typename T>
Plan make_plan(const Shape& shape) {
    Plan plan{};
    const int taps = shape.kernel * shape.kernel;
    plan.halo_width = shape.c <= 16 ? 16 : 32;
    const auto matrix_bytes = [&](const Tiling& each) {
        return matrix_regions<T>(each, taps, plan.halo_width).bytes;
    };
    plan.outputs = choose_tiling(
        shape.n, shape.p, shape.q, kTile<T>,
        [&](int size) { return (size - 1) * shape.stride + reach(shape) + 1; }, matrix_bytes);
    plan.matrix_bytes = matrix_bytes(plan.outputs);
    plan.matrix_parts = parts_for(plan.outputs.tiles, (shape.c + kChannels - 1) / kChannels);

    plan.tile_width = shape.c <= 16 || taps > 25 ? 16 : 32;
    const auto depthwise_bytes = [&](const Tiling& each) {
        return depthwise_regions<T>(each, taps, plan.tile_width).bytes;
    };
    plan.inputs = choose_tiling(
        shape.n, shape.h, shape.w, tile_pixels<T>(plan.tile_width),
        [&](int size) {
            return (size - 1 + reach(shape) + shape.stride - 1) / shape.stride + 1;
        },
        depthwise_bytes);
    plan.depthwise_bytes = depthwise_bytes(plan.inputs);
    const int rows = (shape.c + plan.tile_width - 1) / plan.tile_width;
    plan.depthwise_parts = parts_for(plan.inputs.tiles, rows);

    const std::int64_t pixels = shape.n * shape.p * shape.q;
    plan.dt = 0;
    plan.pointwise = aligned(pixels * shape.c * static_cast<std::int64_t>(sizeof(T)));
    plan.depthwise =
        aligned(plan.pointwise + std::int64_t{4} * plan.matrix_parts * shape.d * shape.c);
    plan.counters =
        aligned(plan.depthwise + std::int64_t{4} * plan.depthwise_parts * (taps + 2) * shape.c);
    plan.bytes = plan.counters + std::int64_t{4} * ((shape.c + kChannels - 1) / kChannels * 4);
    return plan;
}

template <typename T>
void run(const Shape& shape, const Upstream& up, const void* x, const Norm& norm,
         const void* depthwise, const void* pointwise, void* dx, bool accumulate,
         void* d_depthwise, void* d_pointwise, float* sums, void* workspace, void* stream,
         bool wide) {
    const Plan plan = make_plan<T>(shape);
    auto* const scratch = static_cast<unsigned char*>(workspace);
    const Call<T> call = {shape,
                          plan,
                          up,
                          static_cast<const T*>(x),
                          norm,
                          static_cast<const T*>(depthwise),
                          static_cast<const T*>(pointwise),
                          static_cast<T*>(dx),
                          accumulate,
                          static_cast<T*>(d_depthwise),
                          static_cast<T*>(d_pointwise),
                          sums,
                          reinterpret_cast<T*>(scratch + plan.dt),
                          scratch,
                          stream,
                          wide};
    launch_matrix(call);
    launch_depthwise(call);
}

}  // namespace
}  // namespace backward

std::size_t separable_backward_workspace(Type type, const Shape& shape) {
    const backward::Plan plan = type == Type::kFloat ? backward::make_plan<float>(shape)
                                                     : backward::make_plan<__half>(shape);
    return static_cast<std::size_t>(plan.bytes);
}

void separable_backward(Type type, const Shape& shape, const Upstream& up, const void* x,
                        const Norm& norm, const void* depthwise, const void* pointwise, void* dx,
                        bool accumulate, void* d_depthwise, void* d_pointwise, float* sums,
                        void* workspace, void* stream) {
    const bool wide = is_wide(type, shape.c, x, pointwise, dx, workspace) &&
                      is_wide(type, shape.d, up.gradient, up.z);
    const auto call = [&](auto run_as) {
        run_as(shape, up, x, norm, depthwise, pointwise, dx, accumulate, d_depthwise, d_pointwise,
               sums, workspace, stream, wide);
    };
    switch (type) {
        case Type::kFloat: return call(backward::run<float>);
        case Type::kHalf: return call(backward::run<__half>);
        case Type::kBfloat16: return call(backward::run<__nv_bfloat16>);
    }
}

}  // namespace hwnas_cuda
