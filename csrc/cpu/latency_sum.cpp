#include "latency_sum.h"

#include <stdexcept>
#include <string>

namespace hwnas {

namespace {

constexpr std::size_t kAccumulators = 4;

// Reads the ids without an exit in the loop, so that the compiler may vectorise it. A negative id
// becomes a huge unsigned one and fails the same comparison.
bool all_below(const std::int32_t* ids, std::size_t count, std::uint32_t limit) {
    unsigned faults = 0;
    for (std::size_t i = 0; i < count; ++i) {
        faults |= static_cast<unsigned>(static_cast<std::uint32_t>(ids[i]) >= limit);
    }
    return faults == 0;
}

[[noreturn]] void fail_on_first_bad_id(const std::int32_t* ids, std::size_t count,
                                       std::size_t table_size) {
    for (std::size_t i = 0; i < count; ++i) {
        if (ids[i] < 0 || static_cast<std::size_t>(ids[i]) >= table_size) {
            throw std::invalid_argument("kernel_ids[" + std::to_string(i) +
                                        "] = " + std::to_string(ids[i]) +
                                        " is not an index of table, which has " +
                                        std::to_string(table_size) + " entries");
        }
    }
    throw std::logic_error("kernel_ids changed while they were checked");
}

}  // namespace

void check_segments(std::size_t table_size, const std::int32_t* kernel_ids, std::size_t ids,
                    const std::int64_t* offsets, std::size_t architectures) {
    if (offsets[0] != 0) {
        throw std::invalid_argument("offsets[0] = " + std::to_string(offsets[0]) + " is not 0");
    }
    for (std::size_t a = 0; a < architectures; ++a) {
        if (offsets[a + 1] < offsets[a]) {
            throw std::invalid_argument("offsets[" + std::to_string(a + 1) +
                                        "] = " + std::to_string(offsets[a + 1]) +
                                        " is less than offsets[" + std::to_string(a) +
                                        "] = " + std::to_string(offsets[a]));
        }
    }
    if (static_cast<std::uint64_t>(offsets[architectures]) != ids) {
        throw std::invalid_argument("offsets[" + std::to_string(architectures) +
                                    "] = " + std::to_string(offsets[architectures]) +
                                    " is not the number of kernel_ids, " + std::to_string(ids));
    }
    constexpr std::size_t largest = 0x80000000U;  // every non-negative int32 is below this
    const auto limit = static_cast<std::uint32_t>(table_size < largest ? table_size : largest);
    if (!all_below(kernel_ids, ids, limit)) {
        fail_on_first_bad_id(kernel_ids, ids, table_size);
    }
}

void sum_latencies(const double* table, const std::int32_t* kernel_ids,
                   const std::int64_t* offsets, std::size_t architectures, double* out) {
    for (std::size_t a = 0; a < architectures; ++a) {
        const std::int32_t* ids = kernel_ids + offsets[a];
        const auto count = static_cast<std::size_t>(offsets[a + 1] - offsets[a]);
        // One accumulator would make every addition wait for the one before it (4 cycles each).
        double sums[kAccumulators] = {};
        std::size_t i = 0;
        for (; i + kAccumulators <= count; i += kAccumulators) {
            for (std::size_t lane = 0; lane < kAccumulators; ++lane) {
                sums[lane] += table[ids[i + lane]];
            }
        }
        for (std::size_t lane = 0; i < count; ++i, ++lane) {
            sums[lane] += table[ids[i]];
        }
        out[a] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
}

}  // namespace hwnas
