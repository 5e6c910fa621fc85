#include "cpu/isa.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace hwnas {

namespace {

Isa best() noexcept {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        return Isa::v4;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2")) {
        return Isa::v3;
    }
    return Isa::v2;
#else
    return Isa::plain;
#endif
}

Isa choose() noexcept {
    const Isa found = best();
    const char* const asked = std::getenv("HWNAS_ISA");
    if (asked == nullptr) {
        return found;
    }
    for (const Isa level : {Isa::v2, Isa::v3, Isa::v4}) {
        if (std::strcmp(asked, isa_name(level)) == 0 && level < found) {
            return level;
        }
    }
    return found;
}

}  // namespace

Isa isa() noexcept {
    static const Isa chosen = choose();
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
