#include "tfrecord.h"

#include <array>
#include <cstring>
#include <stdexcept>
#include <string>

namespace hwnas {

namespace {

using Table = std::array<std::array<std::uint32_t, 256>, 8>;

// table[k][b]: what byte b does to the CRC when k more bytes follow in the same step.
Table make_table() {
    constexpr std::uint32_t kPolynomial = 0x82f63b78;
    Table table{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
        std::uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
        }
        table[0][byte] = crc;
    }
    for (std::size_t k = 1; k < 8; ++k) {
        for (std::size_t byte = 0; byte < 256; ++byte) {
            const std::uint32_t before = table[k - 1][byte];
            table[k][byte] = (before >> 8) ^ table[0][before & 255];
        }
    }
    return table;
}

template <typename T>
T read(const unsigned char* at) {
    T value;
    std::memcpy(&value, at, sizeof(T));
    return value;
}

[[noreturn]] void fail(std::size_t record, std::size_t offset, const char* what) {
    throw std::invalid_argument("record " + std::to_string(record) + " at byte " +
                                std::to_string(offset) + " " + what);
}

}  // namespace

std::uint32_t crc32c(const unsigned char* data, std::size_t size) {
    static const Table table = make_table();
    std::uint32_t crc = 0xffffffff;
    for (; size >= 8; data += 8, size -= 8) {
        const std::uint64_t word = read<std::uint64_t>(data) ^ crc;
        crc = 0;
        for (std::size_t k = 0; k < 8; ++k) {
            crc ^= table[7 - k][word >> (8 * k) & 255];
        }
    }
    for (; size > 0; ++data, --size) {
        crc = (crc >> 8) ^ table[0][(crc ^ *data) & 255];
    }
    return ~crc;
}

std::vector<RecordSpan> find_records(const unsigned char* file, std::size_t size) {
    constexpr std::size_t kHead = 12;
    constexpr std::size_t kTail = 4;
    std::vector<RecordSpan> spans;
    std::size_t at = 0;
    while (at < size) {
        if (size - at < kHead + kTail) {
            fail(spans.size(), at, "is cut off");
        }
        if (masked_crc(crc32c(file + at, 8)) != read<std::uint32_t>(file + at + 8)) {
            fail(spans.size(), at, "has a damaged length");
        }
        const auto length = read<std::uint64_t>(file + at);
        if (length > size - at - kHead - kTail) {
            fail(spans.size(), at, "is cut off");
        }
        const auto bytes = static_cast<std::size_t>(length);
        const unsigned char* const data = file + at + kHead;
        if (masked_crc(crc32c(data, bytes)) != read<std::uint32_t>(data + bytes)) {
            fail(spans.size(), at, "has damaged data");
        }
        spans.push_back({static_cast<std::int64_t>(at + kHead), static_cast<std::int64_t>(bytes)});
        at += kHead + bytes + kTail;
    }
    return spans;
}

}  // namespace hwnas
