#include "cpu/isa.h"

#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <string>

#include "cpu/isa_choice.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace hwnas {

namespace {

#if defined(__x86_64__)
constexpr Isa kLowest = Isa::v2;

constexpr std::uint32_t bits(std::initializer_list<int> numbers) {
    std::uint32_t mask = 0;
    for (const int number : numbers) {
        mask |= std::uint32_t{1} << number;
    }
    return mask;
}

// What the processor says of itself, and which registers the operating system saves.
struct Cpu {
    std::uint32_t leaf1_ecx = 0;
    std::uint32_t leaf7_ebx = 0;
    std::uint32_t extended_ecx = 0;
    std::uint32_t saved = 0;  // XCR0

    bool has(const Cpu& level) const {
        return (leaf1_ecx & level.leaf1_ecx) == level.leaf1_ecx &&
               (leaf7_ebx & level.leaf7_ebx) == level.leaf7_ebx &&
               (extended_ecx & level.extended_ecx) == level.extended_ecx &&
               (saved & level.saved) == level.saved;
    }
};

// All that -march=x86-64-vN lets the compiler use, as the psABI lists it: it needs no permission to
// use any of them, so one bit less and the level cannot run.
constexpr Cpu kV2{
    // SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT
    bits({0, 9, 13, 19, 20, 23}), 0,
    // LAHF and SAHF
    bits({0}), 0};
constexpr Cpu kV3{
    // FMA, MOVBE, OSXSAVE, AVX, F16C
    kV2.leaf1_ecx | bits({12, 22, 27, 28, 29}),
    // BMI1, AVX2, BMI2
    bits({3, 5, 8}),
    // LZCNT
    kV2.extended_ecx | bits({5}),
    // XMM, YMM
    bits({1, 2})};
constexpr Cpu kV4{
    kV3.leaf1_ecx,
    // AVX512F, AVX512DQ, AVX512CD, AVX512BW, AVX512VL
    kV3.leaf7_ebx | bits({16, 17, 28, 30, 31}),
    kV3.extended_ecx,
    // masks, upper halves of ZMM0 to 15, ZMM16 to 31
    kV3.saved | bits({5, 6, 7})};

Cpu this_cpu() noexcept {
    Cpu cpu;
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0) {
        cpu.leaf1_ecx = ecx;
    }
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0) {
        cpu.leaf7_ebx = ebx;
    }
    if (__get_cpuid(0x80000001U, &eax, &ebx, &ecx, &edx) != 0) {
        cpu.extended_ecx = ecx;
    }
    if ((cpu.leaf1_ecx & bits({27})) != 0) {  // without OSXSAVE, XGETBV is no instruction
        __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
        cpu.saved = eax;
    }
    return cpu;
}
#else
constexpr Isa kLowest = Isa::plain;
#endif

// The levels up to `best`, as in "v2, v3 or v4".
std::string levels_up_to(Isa best) {
    std::string names = isa_name(kLowest);
    for (int level = static_cast<int>(kLowest) + 1; level <= static_cast<int>(best); ++level) {
        names += level == static_cast<int>(best) ? " or " : ", ";
        names += isa_name(static_cast<Isa>(level));
    }
    return names;
}

}  // namespace

Isa best_isa() noexcept {
#if defined(__x86_64__)
    const Cpu cpu = this_cpu();
    if (cpu.has(kV4)) {
        return Isa::v4;
    }
    if (cpu.has(kV3)) {
        return Isa::v3;
    }
    return cpu.has(kV2) ? Isa::v2 : Isa::plain;
#else
    return Isa::plain;
#endif
}

Isa choose_isa(const char* asked, Isa best) {
    if (best < kLowest) {
        throw UnusableIsa("the compiled kernels need a processor of level x86-64-v2 (SSE4.2, POPCNT)",
                          "set HWNAS_KERNELS=reference to run without them");
    }
    const std::string name = asked == nullptr ? "" : asked;
    if (name.empty()) {
        return best;
    }
    for (int level = static_cast<int>(kLowest); level <= static_cast<int>(best); ++level) {
        if (name == isa_name(static_cast<Isa>(level))) {
            return static_cast<Isa>(level);
        }
    }
    throw UnusableIsa("HWNAS_ISA is " + name + ", but kernels run on this processor with " +
                          levels_up_to(best),
                      std::string("unset HWNAS_ISA to take the best, ") + isa_name(best));
}

Isa isa() {
    static const Isa chosen = choose_isa(std::getenv("HWNAS_ISA"), best_isa());
    return chosen;
}

const char* isa_name(Isa level) noexcept {
    switch (level) {
        case Isa::v4:
            return "v4";
        case Isa::v3:
            return "v3";
        case Isa::v2:
            return "v2";
        default:
            return "plain";
    }
}

}  // namespace hwnas
