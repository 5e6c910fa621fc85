// Memory for activations that is used again: a fresh block of some megabytes costs a page fault for
// every 4 KiB, which is as much as a pass over it.
#pragma once

#include <cstddef>

namespace hwnas {

struct ArenaState {
    std::size_t in_use;    // bytes handed out
    std::size_t cached;    // bytes kept for the next request
    std::size_t peak;      // the most that was in use since the last reset
};

// A block of at least `bytes`, aligned to 64. Thread safe, also across fork().
// Throws std::bad_alloc when the system has no more.
void* arena_take(std::size_t bytes);

// Gives a block back. With what is in use, at most half more is kept than was ever in use at once
// (and 64 MiB).
void arena_give(void* block) noexcept;

// Returns all kept blocks to the system.
void arena_trim() noexcept;

ArenaState arena_state() noexcept;
void arena_reset_peak() noexcept;

// When set, every block is filled with NaN before it is handed out: a test's way to
// notice that a kernel reads what it has not written.
void arena_poison(bool on) noexcept;

}  // namespace hwnas
