// MD5 (RFC 1321) of eight short messages at once, one a lane, and of one.
//
// Include from kernel files only. MD5 is one long chain of dependent steps: eight lanes cost about
// what one costs.
#pragma once

#include <cstdint>

namespace hwnas {
namespace HWNAS_ISA {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "MD5 reads little-endian words");

constexpr int kMd5Lanes = 8;
constexpr int kMd5Block = 64;

typedef std::uint32_t Lanes __attribute__((vector_size(4 * kMd5Lanes)));

// floor(2^32 * abs(sin(i + 1))), rotations and message words of the 64 steps.
constexpr std::uint32_t kMd5Sines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};

constexpr int kMd5Shifts[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

constexpr int md5_word(int step) {
    return step < 16   ? step
           : step < 32 ? (5 * step + 1) % 16
           : step < 48 ? (3 * step + 5) % 16
                       : 7 * step % 16;
}

// early + the round's function of b, c and d. What does not need b, the latest word, comes first.
template <int kRound, typename Word>
static inline __attribute__((always_inline)) Word md5_mix(Word early, Word b, Word c, Word d) {
    if (kRound == 0) {
        return early + (d ^ (b & (c ^ d)));
    }
    if (kRound == 1) {
        return (early + (c & ~d)) + (b & d);
    }
    return early + (kRound == 2 ? b ^ (c ^ d) : c ^ (b | ~d));
}

template <int kStep, typename Word>
struct Md5Steps {
    static inline __attribute__((always_inline)) void run(Word a, Word b, Word c, Word d,
                                                          const Word* words, Word* state) {
        constexpr int kRound = kStep / 16;
        constexpr int kShift = kMd5Shifts[kRound][kStep % 4];
        const Word early = a + words[md5_word(kStep)] + kMd5Sines[kStep];
        const Word sum = md5_mix<kRound>(early, b, c, d);
        const Word next = b + ((sum << kShift) | (sum >> (32 - kShift)));
        Md5Steps<kStep + 1, Word>::run(d, next, b, c, words, state);
    }
};

template <typename Word>
struct Md5Steps<64, Word> {
    static inline __attribute__((always_inline)) void run(Word a, Word b, Word c, Word d,
                                                          const Word*, Word* state) {
        state[0] += a;
        state[1] += b;
        state[2] += c;
        state[3] += d;
    }
};

constexpr std::uint32_t kMd5Start[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};

// Bytes that md5_pad may write behind a message.
constexpr int kMd5Slack = kMd5Block + 9;

// Ends a message of `length` bytes and returns its number of blocks.
static inline int md5_pad(unsigned char* message, int length) {
    const int blocks = (length + 8) / kMd5Block + 1;
    message[length] = 0x80;
    __builtin_memset(message + length + 1, 0, kMd5Slack - 1);
    const std::uint32_t bits = static_cast<std::uint32_t>(length) * 8;
    __builtin_memcpy(message + blocks * kMd5Block - 8, &bits, 4);
    return blocks;
}

// digest = MD5 of a padded message.
static inline void md5_one(const unsigned char* message, int blocks, unsigned char* digest) {
    std::uint32_t state[4];
    __builtin_memcpy(state, kMd5Start, 16);
    for (int block = 0; block < blocks; ++block) {
        std::uint32_t words[16];
        __builtin_memcpy(words, message + block * kMd5Block, kMd5Block);
        Md5Steps<0, std::uint32_t>::run(state[0], state[1], state[2], state[3], words, state);
    }
    __builtin_memcpy(digest, state, 16);
}

// rows[i][j] becomes rows[j][i].
static inline __attribute__((always_inline)) void transpose(Lanes* rows) {
    Lanes pairs[8];
    for (int i = 0; i < 8; i += 2) {
        pairs[i] =
            __builtin_shufflevector(rows[i], rows[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        pairs[i + 1] =
            __builtin_shufflevector(rows[i], rows[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    Lanes fours[8];
    for (int i = 0; i < 8; i += 4) {
        fours[i] =
            __builtin_shufflevector(pairs[i], pairs[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        fours[i + 1] =
            __builtin_shufflevector(pairs[i], pairs[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        fours[i + 2] =
            __builtin_shufflevector(pairs[i + 1], pairs[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        fours[i + 3] =
            __builtin_shufflevector(pairs[i + 1], pairs[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < 4; ++i) {
        rows[i] =
            __builtin_shufflevector(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        rows[i + 4] =
            __builtin_shufflevector(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

// words[i][lane] = word i of the MD5 of the padded message `lane`; they are `stride` bytes apart and
// of blocks[lane] blocks.
static inline void md5_lanes(const unsigned char* messages, int stride, const int* blocks,
                             std::uint32_t (*words)[kMd5Lanes]) {
    Lanes state[4];
    for (int i = 0; i < 4; ++i) {
        state[i] = Lanes{} + kMd5Start[i];
    }
    int most = 0;
    Lanes last;
    __builtin_memcpy(&last, blocks, sizeof(last));
    for (int lane = 0; lane < kMd5Lanes; ++lane) {
        most = blocks[lane] > most ? blocks[lane] : most;
    }
    for (int block = 0; block < most; ++block) {
        Lanes read[16];
        for (int half = 0; half < 2; ++half) {
            for (int lane = 0; lane < kMd5Lanes; ++lane) {
                __builtin_memcpy(&read[8 * half + lane],
                                 messages + lane * stride + block * kMd5Block + 32 * half, 32);
            }
            transpose(read + 8 * half);
        }
        Lanes next[4] = {state[0], state[1], state[2], state[3]};
        Md5Steps<0, Lanes>::run(state[0], state[1], state[2], state[3], read, next);
        const Lanes is_open = (Lanes)(last > static_cast<std::uint32_t>(block));
        for (int i = 0; i < 4; ++i) {
            state[i] = (next[i] & is_open) | (state[i] & ~is_open);
        }
    }
    __builtin_memcpy(words, state, sizeof(state));
}

}  // namespace HWNAS_ISA
}  // namespace hwnas
