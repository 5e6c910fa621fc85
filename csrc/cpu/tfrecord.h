// TFRecord files: for each record its length (8 bytes), the masked CRC-32C of that (4), the data,
// and the masked CRC-32C of those (4), all little-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hwnas {

// CRC-32C (Castagnoli), as RFC 3720 defines it.
std::uint32_t crc32c(const unsigned char* data, std::size_t size);

// The form in which TFRecord stores a CRC: rotated right by 15 bits, plus 0xa282ead8.
constexpr std::uint32_t masked_crc(std::uint32_t crc) {
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

struct RecordSpan {
    std::int64_t offset;  // of the data
    std::int64_t size;
};

// Returns where the data of all records are. Throws std::invalid_argument with the position of the
// first record that is cut off or damaged.
std::vector<RecordSpan> find_records(const unsigned char* file, std::size_t size);

}  // namespace hwnas
