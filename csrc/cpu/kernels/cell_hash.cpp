#include "cpu/kernels/cell_hash.h"

#include "cpu/kernels/md5.h"

namespace hwnas {
namespace HWNAS_ISA {

namespace {

constexpr int kDigest = 16;
constexpr int kHex = 2 * kDigest;
// The longest message: all other vertices and the own, and two bars. Not a multiple of 4096 or of
// a high power of two: the lanes' lines would fight for the same places in the cache.
constexpr int kStride = kCellVertices * kHex + 2 + kMd5Slack + 21;
// "['…', '…']"
constexpr int kListBytes = kCellVertices * (kHex + 4) + kMd5Slack;

__extension__ typedef unsigned __int128 Wide;
typedef unsigned char Bytes __attribute__((vector_size(kDigest)));

static_assert(kMd5Lanes >= kCellVertices, "one lane a vertex");

struct Neighbours {
    unsigned in[kCellVertices];   // bit x of in[y]: an edge from x to y
    unsigned out[kCellVertices];  // bit y of out[x]
};

Neighbours neighbours_of(const Cell& cell) {
    Neighbours found{};
    for (int y = 1; y < cell.vertices; ++y) {
        found.in[y] = cell.edges >> edge_bit(0, y) & ((1u << y) - 1);
        for (int x = 0; x < y; ++x) {
            found.out[x] |= (found.in[y] >> x & 1) << y;
        }
    }
    return found;
}

void write_hex(const unsigned char* digest, unsigned char* text) {
    Bytes bytes;
    __builtin_memcpy(&bytes, digest, kDigest);
    Bytes high = bytes >> 4;
    Bytes low = bytes & 15;
    high += '0' + ((Bytes)(high > 9) & ('a' - '0' - 10));
    low += '0' + ((Bytes)(low > 9) & ('a' - '0' - 10));
    const Bytes first = __builtin_shufflevector(high, low, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21,
                                                6, 22, 7, 23);
    const Bytes second = __builtin_shufflevector(high, low, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28,
                                                 13, 29, 14, 30, 15, 31);
    __builtin_memcpy(text, &first, kDigest);
    __builtin_memcpy(text + kDigest, &second, kDigest);
}

int write_number(int value, unsigned char* text) {
    int length = 0;
    if (value < 0) {
        text[length++] = '-';
        value = -value;
    }
    for (int unit = value >= 100 ? 100 : value >= 10 ? 10 : 1; unit > 0; unit /= 10) {
        text[length++] = static_cast<unsigned char>('0' + value / unit % 10);
    }
    return length;
}

// "(out-degree, in-degree, label)", as Python prints a tuple.
int write_start(unsigned out, unsigned in, int label, unsigned char* text) {
    int length = 0;
    text[length++] = '(';
    length += write_number(__builtin_popcount(out), text + length);
    text[length++] = ',';
    text[length++] = ' ';
    length += write_number(__builtin_popcount(in), text + length);
    text[length++] = ',';
    text[length++] = ' ';
    length += write_number(label, text + length);
    text[length++] = ')';
    return length;
}

Wide big_endian(const unsigned char* at) {
    std::uint64_t words[2];
    __builtin_memcpy(words, at, kDigest);
    return static_cast<Wide>(__builtin_bswap64(words[0])) << 64 | __builtin_bswap64(words[1]);
}

// order[i]: the vertex with the i-th smallest digest. No branches: they would be mispredicted.
void sort_vertices(const unsigned char (*digests)[kDigest], int vertices, int* order) {
    Wide value[kCellVertices];
    int rank[kCellVertices];
    for (int v = 0; v < vertices; ++v) {
        value[v] = big_endian(digests[v]);
        rank[v] = 0;
        for (int u = 0; u < v; ++u) {
            const int is_after = value[u] <= value[v];
            rank[v] += is_after;
            rank[u] += 1 - is_after;
        }
    }
    for (int v = 0; v < vertices; ++v) {
        order[rank[v]] = v;
    }
}

// Writes the digests of `members` in order; what stands behind the returned length is overwritten.
int write_sorted(unsigned members, const int* order, int vertices,
                 const unsigned char (*hex)[kHex], unsigned char* text) {
    int length = 0;
    for (int i = 0; i < vertices; ++i) {
        __builtin_memcpy(text + length, hex[order[i]], kHex);
        length += static_cast<int>(members >> order[i] & 1) * kHex;
    }
    return length;
}

struct Round {
    alignas(64) unsigned char messages[kMd5Lanes * kStride];
    int blocks[kMd5Lanes] = {};
    unsigned char digests[kMd5Lanes][kDigest];
    unsigned char hex[kCellVertices][kHex];
    int order[kCellVertices];

    void hash(int vertices) {
        md5_lanes(messages, kStride, blocks, digests);
        for (int v = 0; v < vertices; ++v) {
            write_hex(digests[v], hex[v]);
        }
        sort_vertices(digests, vertices, order);
    }
};

void hash_cell(const Cell& cell, Round& round, unsigned char* digest) {
    const int vertices = cell.vertices;
    const Neighbours near = neighbours_of(cell);
    for (int lane = 0; lane < kMd5Lanes; ++lane) {
        round.blocks[lane] = 0;
    }
    for (int v = 0; v < vertices; ++v) {
        unsigned char* const text = round.messages + v * kStride;
        round.blocks[v] = md5_pad(text, write_start(near.out[v], near.in[v], cell.labels[v], text));
    }
    round.hash(vertices);
    for (int i = 0; i < vertices; ++i) {
        for (int v = 0; v < vertices; ++v) {
            unsigned char* const text = round.messages + v * kStride;
            int length = write_sorted(near.in[v], round.order, vertices, round.hex, text);
            text[length++] = '|';
            length += write_sorted(near.out[v], round.order, vertices, round.hex, text + length);
            text[length++] = '|';
            __builtin_memcpy(text + length, round.hex[v], kHex);
            round.blocks[v] = md5_pad(text, length + kHex);
        }
        round.hash(vertices);
    }
    unsigned char list[kListBytes];
    int length = 0;
    list[length++] = '[';
    for (int i = 0; i < vertices; ++i) {
        if (i > 0) {
            list[length++] = ',';
            list[length++] = ' ';
        }
        list[length++] = '\'';
        __builtin_memcpy(list + length, round.hex[round.order[i]], kHex);
        length += kHex;
        list[length++] = '\'';
    }
    list[length++] = ']';
    md5_one(list, md5_pad(list, length), digest);
}

}  // namespace

void cell_hashes(const CellHashArgs& args) {
    Round round;
    __builtin_memset(round.messages, 0, sizeof(round.messages));
    for (std::int64_t i = 0; i < args.count; ++i) {
        hash_cell(args.cells[i], round, args.digests + i * kDigest);
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
