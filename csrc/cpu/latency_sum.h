// Predicted latency of many architectures at once: a segmented gather and sum.
//
// The search asks for the latency of every child it scores, so the price of a query is what limits
// how many children it may look at. An architecture is a list of kernel ids; the device's table
// holds one time a kernel. Nothing here allocates, and nothing here knows Python.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hwnas {

// Checks the operands of sum_latencies.
//
// `kernel_ids` holds `ids` entries in [0, table_size); `offsets` holds `architectures + 1` entries
// that start at 0, never fall, and end at `ids`.
//
// Throws std::invalid_argument naming the operand, the position and the value of the first fault.
void check_segments(std::size_t table_size, const std::int32_t* kernel_ids, std::size_t ids,
                    const std::int64_t* offsets, std::size_t architectures);

// out[a] = sum of table[kernel_ids[i]] for i in [offsets[a], offsets[a + 1]); 0 for an empty range.
//
// The operands must have passed check_segments. The order of summation is fixed: term j of a
// segment goes to accumulator j mod 4, and the accumulators are joined as (0 + 1) + (2 + 3). The
// same input therefore gives the same bits on every call, whatever the neighbouring segments are.
void sum_latencies(const double* table, const std::int32_t* kernel_ids,
                   const std::int64_t* offsets, std::size_t architectures, double* out);

}  // namespace hwnas
