// How the instruction set is chosen; kernel files need only isa.h.
#pragma once

#include <stdexcept>
#include <string>

#include "cpu/isa.h"

namespace hwnas {

// No kernel can run as things are. `what()` says what was asked for and what is possible.
class UnusableIsa : public std::runtime_error {
  public:
    UnusableIsa(const std::string& message, const std::string& remedy)
        : std::runtime_error(message), hint(remedy) {}

    std::string hint;
};

// The level that this processor and its operating system can run; plain below v2, and on
// processors that are no x86-64.
Isa best_isa() noexcept;

// The level that kernels run with where `best` is possible and HWNAS_ISA is `asked` (null or empty:
// not set). Throws UnusableIsa.
Isa choose_isa(const char* asked, Isa best);

}  // namespace hwnas
