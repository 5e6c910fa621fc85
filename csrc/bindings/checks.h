// Guards against a caller's slip: kernels get bare addresses, and what does not fit would be written
// into somebody else's memory. Cheap ones only; dtype, layout and shape are checked in kernels/.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace hwnas_bindings {

// An operand that has to be there.
struct Needed {
    const char* name;
    std::uintptr_t address;
};

// Empty tensors have no address, so only those with values are looked at.
inline void check_given(std::int64_t values, std::initializer_list<Needed> operands) {
    for (const Needed& each : operands) {
        if (values > 0 && each.address == 0) {
            throw std::invalid_argument(std::string(each.name) + " is null");
        }
    }
}

inline void check_range(const char* name, std::int64_t value, std::int64_t least,
                        std::int64_t most = INT32_MAX) {
    if (value < least || value > most) {
        throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) +
                                    ", not from " + std::to_string(least) + " to " +
                                    std::to_string(most));
    }
}

inline void check_count(const char* name, std::size_t found, std::size_t expected) {
    if (found != expected) {
        throw std::invalid_argument(std::to_string(found) + " " + name + " where " +
                                    std::to_string(expected) + " are needed");
    }
}

}  // namespace hwnas_bindings
