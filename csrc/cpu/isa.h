// One source, one object per instruction set: a kernel file is compiled once for each of them, and
// the processor that runs it chooses.
//
// A kernel header declares its arguments as a plain struct and ends with HWNAS_KERNEL(name, Args);
// the kernel file defines `void name(const Args&)` inside `namespace hwnas::HWNAS_ISA`. Kernel files
// must not use templates or inline functions of the standard library: the linker keeps one copy of
// those, perhaps the one with instructions that another processor lacks.
#pragma once

namespace hwnas {

// Levels of x86-64 (v2: SSE4.2, v3: AVX2 and FMA, v4: AVX-512); on other processors the one build
// that there is.
enum class Isa { plain = 1, v2 = 2, v3 = 3, v4 = 4 };

// What kernels run with: the best that this processor has, or the lower one that the environment
// variable HWNAS_ISA (v2, v3 or v4) names when the first kernel runs. Throws UnusableIsa
// (isa_choice.h) if that is not possible here.
Isa isa();

// Name of a level, as HWNAS_ISA spells it.
const char* isa_name(Isa level) noexcept;

}  // namespace hwnas

#if defined(__x86_64__)
#define HWNAS_KERNEL(name, Args)              \
    namespace v2 {                            \
    void name(const Args& args);              \
    }                                         \
    namespace v3 {                            \
    void name(const Args& args);              \
    }                                         \
    namespace v4 {                            \
    void name(const Args& args);              \
    }                                         \
    inline void name(const Args& args) {      \
        switch (isa()) {                      \
            case Isa::v4:                     \
                return v4::name(args);        \
            case Isa::v3:                     \
                return v3::name(args);        \
            default:                          \
                return v2::name(args);        \
        }                                     \
    }
#else
#define HWNAS_KERNEL(name, Args)              \
    namespace plain {                         \
    void name(const Args& args);              \
    }                                         \
    inline void name(const Args& args) {      \
        plain::name(args);                    \
    }
#endif
