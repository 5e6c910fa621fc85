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
constexpr int kStartStride = kMd5Block + 32;
constexpr int kItem = kHex + 4;  // ", '…'" of the printed list
constexpr int kListBytes = kCellVertices * kItem + 1 + kMd5Slack;

typedef unsigned char Bytes __attribute__((vector_size(kDigest)));

static_assert(kMd5Lanes >= kCellVertices, "one lane a vertex");

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

// What stays the same in all rounds, and the messages, of which a round writes the digests only.
struct Layout {
    alignas(64) unsigned char messages[kMd5Lanes * kStride] = {};
    int blocks[kMd5Lanes];
    unsigned in[kCellVertices];   // bit x of in[y]: an edge from x to y
    unsigned out[kCellVertices];  // bit y of out[x]
    unsigned char* successors[kCellVertices];  // where the digests of a vertex's successors start
    unsigned char* own[kCellVertices];         // where its own goes
    int edges;
    int from[kCellEdges];
    int to[kCellEdges];

    void set(const Cell& cell);
};

void Layout::set(const Cell& cell) {
    for (int v = 0; v < kCellVertices; ++v) {
        in[v] = 0;
        out[v] = 0;
        blocks[v] = 0;
    }
    edges = 0;
    for (int y = 1; y < cell.vertices; ++y) {
        in[y] = cell.edges >> edge_bit(0, y) & ((1u << y) - 1);
        for (unsigned left = in[y]; left != 0; left &= left - 1) {
            const int x = __builtin_ctz(left);
            out[x] |= 1u << y;
            from[edges] = x;
            to[edges++] = y;
        }
    }
    for (int v = 0; v < cell.vertices; ++v) {
        unsigned char* const text = messages + v * kStride;
        successors[v] = text + kHex * __builtin_popcount(in[v]) + 1;
        own[v] = successors[v] + kHex * __builtin_popcount(out[v]) + 1;
        successors[v][-1] = '|';
        own[v][-1] = '|';
        blocks[v] = md5_pad(text, static_cast<int>(own[v] - text) + kHex);
    }
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

// The vertices' digests after a round.
struct Digests {
    unsigned char hex[kCellVertices][kHex];
    unsigned below[kCellVertices];  // bit u of below[v]: u's digest sorts before v's

    void set(const std::uint32_t (*words)[kMd5Lanes]);
};

void Digests::set(const std::uint32_t (*words)[kMd5Lanes]) {
    std::uint64_t value[kCellVertices];  // its first 8 bytes as a number
    for (int v = 0; v < kCellVertices; ++v) {
        std::uint32_t digest[4];
        for (int i = 0; i < 4; ++i) {
            digest[i] = words[i][v];
        }
        write_hex(reinterpret_cast<const unsigned char*>(digest), hex[v]);
        value[v] = static_cast<std::uint64_t>(__builtin_bswap32(digest[0])) << 32 |
                   __builtin_bswap32(digest[1]);
    }
    // Equal digests stay in the order of their vertices: any order gives the same text. Different
    // ones with the same first 8 bytes would not, but that has a chance of 2^-64.
    for (int v = 0; v < kCellVertices; ++v) {
        below[v] = 0;
        for (int u = 0; u < v; ++u) {
            const unsigned is_after = value[u] <= value[v];
            below[v] |= is_after << u;
            below[u] |= (1 - is_after) << v;
        }
    }
}

// Hashes what the vertices start from.
void hash_starts(const Cell& cell, const Layout& layout, std::uint32_t (*words)[kMd5Lanes]) {
    alignas(64) unsigned char messages[kMd5Lanes * kStartStride] = {};
    const int blocks[kMd5Lanes] = {1, 1, 1, 1, 1, 1, 1, 1};
    for (int v = 0; v < cell.vertices; ++v) {
        unsigned char* const text = messages + v * kStartStride;
        const int length = write_start(layout.out[v], layout.in[v], cell.labels[v], text);
        text[length] = 0x80;
        text[kMd5Block - 8] = static_cast<unsigned char>(8 * length);
    }
    md5_lanes(messages, kStartStride, blocks, words);
}

// How many vertices of `members` come before vertex `v`.
int place(unsigned members, const Digests& digests, int v) {
    return __builtin_popcount(members & digests.below[v]);
}

// Fills the messages of the next round.
void write_round(const Layout& layout, const Digests& digests, int vertices,
                 unsigned char* messages) {
    for (int e = 0; e < layout.edges; ++e) {
        const int x = layout.from[e];
        const int y = layout.to[e];
        __builtin_memcpy(messages + y * kStride + kHex * place(layout.in[y], digests, x),
                         digests.hex[x], kHex);
        __builtin_memcpy(layout.successors[x] + kHex * place(layout.out[x], digests, y),
                         digests.hex[y], kHex);
    }
    for (int v = 0; v < vertices; ++v) {
        __builtin_memcpy(layout.own[v], digests.hex[v], kHex);
    }
}

// "['…', '…']"
int write_list(const Digests& digests, int vertices, unsigned char* text) {
    const unsigned all = (1u << vertices) - 1;
    for (int v = 0; v < vertices; ++v) {
        unsigned char* const item = text + kItem * place(all, digests, v);
        __builtin_memcpy(item, ", '", 3);
        __builtin_memcpy(item + 3, digests.hex[v], kHex);
        item[3 + kHex] = '\'';
    }
    text[1] = '[';
    text[kItem * vertices] = ']';
    return kItem * vertices;  // the first byte is not part of it
}

void hash_cell(const Cell& cell, Layout& layout, unsigned char* digest) {
    std::uint32_t words[4][kMd5Lanes];
    Digests digests;
    layout.set(cell);
    hash_starts(cell, layout, words);
    digests.set(words);
    for (int i = 0; i < cell.vertices; ++i) {
        write_round(layout, digests, cell.vertices, layout.messages);
        md5_lanes(layout.messages, kStride, layout.blocks, words);
        digests.set(words);
    }
    unsigned char list[kListBytes];
    const int length = write_list(digests, cell.vertices, list);
    md5_one(list + 1, md5_pad(list + 1, length), digest);
}

}  // namespace

void cell_hashes(const CellHashArgs& args) {
    Layout layout;
    for (std::int64_t i = 0; i < args.count; ++i) {
        hash_cell(args.cells[i], layout, args.digests + i * kDigest);
    }
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
