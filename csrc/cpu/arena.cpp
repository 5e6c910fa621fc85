#include "cpu/arena.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

namespace hwnas {

namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kGranularity = 4096;
constexpr std::size_t kSlack = std::size_t{64} << 20;
constexpr int kSlots = 8;

std::atomic<bool> poison{false};

void fill_with_nan(void* block, std::size_t bytes) {
    std::memset(block, 0xff, bytes);  // every float and double is NaN then
}

class Arena {
  public:
    void* take(std::size_t bytes) {
        const std::size_t size = (bytes + kGranularity) / kGranularity * kGranularity;
        const std::lock_guard<std::mutex> lock(mutex_);
        void* block = nullptr;
        const auto found = kept_.find(size);
        if (found != kept_.end() && !found->second.empty()) {
            block = found->second.back();
            found->second.pop_back();
            state_.cached -= size;
        } else {
            if (state_.in_use + state_.cached + size > limit()) {
                release_other(size);
            }
            block = std::aligned_alloc(kAlignment, size);
            if (block == nullptr) {
                release_all();
                block = std::aligned_alloc(kAlignment, size);
            }
            if (block == nullptr) {
                throw std::bad_alloc();
            }
        }
        sizes_[block] = size;
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
        kept_[size].push_back(block);
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

  private:
    // Half more than was ever in use: sizes of one step do not fit into each other exactly, and
    // giving a large block back only to ask for it again costs its page faults each time.
    std::size_t limit() const noexcept { return most_ + most_ / 2 + kSlack; }

    void release_all() noexcept {
        for (auto& [size, blocks] : kept_) {
            for (void* const block : blocks) {
                std::free(block);
            }
        }
        kept_.clear();
        state_.cached = 0;
    }

    // Frees kept blocks, the largest first, until `size` more may be kept.
    void release_other(std::size_t size) noexcept {
        for (auto each = kept_.rbegin(); each != kept_.rend(); ++each) {
            auto& blocks = each->second;
            while (!blocks.empty() && state_.in_use + state_.cached + size > limit()) {
                std::free(blocks.back());
                blocks.pop_back();
                state_.cached -= each->first;
            }
        }
    }

    std::mutex mutex_;
    std::map<std::size_t, std::vector<void*>> kept_;
    std::unordered_map<void*, std::size_t> sizes_;
    ArenaState state_{0, 0, 0};
    std::size_t most_ = 0;
};

// Never destroyed: tensors may give their blocks back while the process ends.
Arena& arena() {
    static Arena* const instance = new Arena;
    return *instance;
}

struct Scratch {
    float* block[kSlots] = {};
    std::size_t size[kSlots] = {};

    ~Scratch() {
        for (float* const each : block) {
            std::free(each);
        }
    }
};

}  // namespace

void* arena_take(std::size_t bytes) {
    return arena().take(bytes);
}

void arena_give(void* block) noexcept {
    arena().give(block);
}

void arena_trim() noexcept {
    arena().trim();
}

ArenaState arena_state() noexcept {
    return arena().state();
}

void arena_reset_peak() noexcept {
    arena().reset_peak();
}

void arena_poison(bool on) noexcept {
    poison.store(on);
}

float* workspace(int slot, std::size_t bytes) {
    thread_local Scratch scratch;
    const std::size_t size = (bytes + kGranularity - 1) / kGranularity * kGranularity;
    if (scratch.size[slot] < size) {
        std::free(scratch.block[slot]);
        scratch.size[slot] = 0;
        scratch.block[slot] = static_cast<float*>(std::aligned_alloc(kGranularity, size));
        if (scratch.block[slot] == nullptr) {
            throw std::bad_alloc();
        }
        scratch.size[slot] = size;
    }
    if (poison.load()) {
        fill_with_nan(scratch.block[slot], scratch.size[slot]);
    }
    return scratch.block[slot];
}

}  // namespace hwnas
