#include "cpu/arena.h"

#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <unordered_map>

namespace hwnas {

namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kGranularity = 4096;
constexpr std::size_t kSlack = std::size_t{64} << 20;

std::atomic<bool> poison{false};

void fill_with_nan(void* block, std::size_t bytes) {
    std::memset(block, 0xff, bytes);  // every float and double is NaN then
}

struct Free {
    void operator()(void* block) const noexcept { std::free(block); }
};

// Blocks of one size that wait for the next request. Each holds the address of the one behind it:
// to keep a block takes no memory, so that giving one back cannot fail.
class Shelf {
  public:
    bool is_empty() const noexcept { return first_ == nullptr; }

    void push(void* block) noexcept {
        new (block) void*(first_);
        first_ = block;
    }

    void* pop() noexcept {
        void* const block = first_;
        first_ = *static_cast<void**>(block);
        return block;
    }

  private:
    void* first_ = nullptr;
};

class Arena {
  public:
    void* take(std::size_t bytes) {
        const std::size_t size = (bytes + kGranularity) / kGranularity * kGranularity;
        const std::lock_guard<std::mutex> lock(mutex_);
        Shelf& shelf = kept_[size];
        std::unique_ptr<void, Free> owner;
        if (!shelf.is_empty()) {
            owner.reset(shelf.pop());
            state_.cached -= size;
        } else {
            if (state_.in_use + state_.cached + size > limit()) {
                release_other(size);
            }
            owner.reset(std::aligned_alloc(kAlignment, size));
            if (owner == nullptr) {
                release_all();
                owner.reset(std::aligned_alloc(kAlignment, size));
            }
            if (owner == nullptr) {
                throw std::bad_alloc();
            }
        }
        sizes_.emplace(owner.get(), size);
        void* const block = owner.release();
        state_.in_use += size;
        if (state_.in_use > state_.peak) {
            state_.peak = state_.in_use;
        }
        if (state_.in_use > most_) {
            most_ = state_.in_use;
        }
        if (poison.load()) {
            fill_with_nan(block, size);
        }
        return block;
    }

    void give(void* block) noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto found = sizes_.find(block);
        if (found == sizes_.end()) {
            return;
        }
        const std::size_t size = found->second;
        sizes_.erase(found);
        state_.in_use -= size;
        if (state_.in_use + state_.cached + size > limit()) {
            release_other(size);
        }
        kept_.find(size)->second.push(block);  // `take` made the shelf, and none is ever removed
        state_.cached += size;
    }

    void trim() noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        release_all();
        most_ = state_.in_use;
    }

    ArenaState state() noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        return state_;
    }

    void reset_peak() noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        state_.peak = state_.in_use;
    }

    void lock() { mutex_.lock(); }
    void unlock() { mutex_.unlock(); }

  private:
    // Half more than was ever in use: sizes of one step do not fit into each other exactly, and
    // giving a large block back only to ask for it again costs its page faults each time.
    std::size_t limit() const noexcept { return most_ + most_ / 2 + kSlack; }

    void release_all() noexcept {
        for (auto& each : kept_) {
            while (!each.second.is_empty()) {
                std::free(each.second.pop());
            }
        }
        state_.cached = 0;
    }

    // Frees kept blocks, the largest first, until `size` more may be kept.
    void release_other(std::size_t size) noexcept {
        for (auto each = kept_.rbegin(); each != kept_.rend(); ++each) {
            Shelf& shelf = each->second;
            while (!shelf.is_empty() && state_.in_use + state_.cached + size > limit()) {
                std::free(shelf.pop());
                state_.cached -= each->first;
            }
        }
    }

    std::mutex mutex_;
    std::map<std::size_t, Shelf> kept_;
    std::unordered_map<void*, std::size_t> sizes_;
    ArenaState state_{0, 0, 0};
    std::size_t most_ = 0;
};

// Never destroyed: tensors may give their blocks back while the process ends.
Arena& arena = *new Arena;

// A child of fork() has the forking thread only: a lock that another thread held would stay locked
// there, and the lists as that thread left them half changed. So fork() waits for the lock.
[[maybe_unused]] const int fork_handlers = pthread_atfork(
    [] { arena.lock(); }, [] { arena.unlock(); }, [] { arena.unlock(); });

}  // namespace

void* arena_take(std::size_t bytes) {
    return arena.take(bytes);
}

void arena_give(void* block) noexcept {
    arena.give(block);
}

void arena_trim() noexcept {
    arena.trim();
}

ArenaState arena_state() noexcept {
    return arena.state();
}

void arena_reset_peak() noexcept {
    arena.reset_peak();
}

void arena_poison(bool on) noexcept {
    poison.store(on);
}

}  // namespace hwnas
