// The scheduler of the host shim: fibers that take turns on one thread of the host.
#include <cstdlib>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "host_shim/cuda.h"
#include "host_shim/fiber.h"

namespace hwnas_shim {
namespace {

constexpr int kSharedDefault = 48 * 1024;
constexpr int kSharedDevice = 99 * 1024;  // what every GPU since sm_80 gives one block
constexpr int kMostThreads = 1024;
constexpr int kWarp = 32;

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct Thread {
    Fiber fiber;
    dim3 index;
    State state = State::kReady;
    const char* file = "";
    int line = 0;
};

struct Warp {
    std::uint64_t slots[kWarp];
};

struct Launch {
    const std::function<void()>* kernel;
    dim3 grid, block_size, block;
    unsigned char* shared;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::size_t running = 0;
};

Launch* current = nullptr;
bool is_reversed_order = false;

Thread& own() { return current->threads[current->running]; }

void wait(State state, const char* file, int line) {
    Thread& thread = own();
    thread.state = state;
    thread.file = file;
    thread.line = line;
    thread.fiber.leave();
}

std::string place(const Thread& thread) {
    return std::string(thread.file) + ":" + std::to_string(thread.line);
}

// Whether threads first..last all wait at one barrier of this kind; then they may go on.
bool release(Launch& launch, std::size_t first, std::size_t last, State state) {
    const Thread& one = launch.threads[first];
    for (std::size_t i = first; i < last; ++i) {
        const Thread& each = launch.threads[i];
        if (each.state != state || each.line != one.line || std::strcmp(each.file, one.file) != 0) {
            return false;
        }
    }
    for (std::size_t i = first; i < last; ++i) {
        launch.threads[i].state = State::kReady;
    }
    return true;
}

[[noreturn]] void fail(const Launch& launch) {
    std::string message = "a barrier that not all threads reach:";
    std::string before;
    int groups = 0;
    for (std::size_t i = 0; i < launch.threads.size(); ++i) {
        const Thread& each = launch.threads[i];
        const std::string now = each.state == State::kDone ? "is done" : "waits at " + place(each);
        if (now != before && ++groups <= 4) {
            message += " thread " + std::to_string(i) + " " + now + ";";
            before = now;
        }
    }
    throw std::runtime_error(message);
}

void run_block(Launch& launch) {
    const std::size_t count = launch.threads.size();
    std::size_t done = 0;
    for (Thread& thread : launch.threads) {
        thread.state = State::kReady;
        thread.fiber.start([] {
            (*current->kernel)();
            own().state = State::kDone;
        });
    }
    while (done < count) {
        bool has_moved = false;
        for (std::size_t i = 0; i < count; ++i) {
            launch.running = is_reversed_order ? count - 1 - i : i;
            Thread& thread = own();
            if (thread.state == State::kReady) {
                thread.fiber.enter();
                has_moved = true;
                done += thread.state == State::kDone;
            }
        }
        if (done == 0 && release(launch, 0, count, State::kAtBlockBarrier)) {
            continue;
        }
        for (std::size_t first = 0; first < count; first += kWarp) {
            const std::size_t last = std::min(count, first + kWarp);
            has_moved |= release(launch, first, last, State::kAtWarpBarrier);
        }
        if (!has_moved && done < count) {
            fail(launch);
        }
    }
}

void check(dim3 block, int shared, bool is_opted_in) {
    if (shared > (is_opted_in ? kSharedDevice : kSharedDefault)) {
        throw std::runtime_error("shared memory of " + std::to_string(shared) +
                                 " bytes is more than a block may have");
    }
    if (block.x == 0 || block.x > kMostThreads || block.y != 1 || block.z != 1) {
        throw std::runtime_error("a block has 1 to 1024 threads in one dimension");
    }
}

std::mutex one_at_a_time;

}  // namespace

void run(dim3 grid, dim3 block, int shared, bool is_opted_in,
         const std::function<void()>& kernel) {
    const std::lock_guard<std::mutex> guard(one_at_a_time);
    check(block, shared, is_opted_in);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) {
        throw std::runtime_error("invalid configuration: the grid");
    }
    Launch launch{};
    launch.kernel = &kernel;
    launch.grid = grid;
    launch.block_size = block;
    launch.threads.resize(block.x);
    launch.warps.resize((block.x + kWarp - 1) / kWarp);
    for (unsigned i = 0; i < block.x; ++i) {
        launch.threads[i].index = dim3(i, 0, 0);
    }
    // Exactly as large as asked for, so that the address sanitizer sees any access beyond it.
    void* memory = nullptr;
    if (posix_memalign(&memory, 128, static_cast<std::size_t>(std::max(shared, 1))) != 0) {
        throw std::bad_alloc();
    }
    const std::unique_ptr<void, void (*)(void*)> owner(memory, &std::free);
    launch.shared = static_cast<unsigned char*>(memory);
    current = &launch;
    try {
        for (launch.block.z = 0; launch.block.z < grid.z; ++launch.block.z) {
            for (launch.block.y = 0; launch.block.y < grid.y; ++launch.block.y) {
                for (launch.block.x = 0; launch.block.x < grid.x; ++launch.block.x) {
                    std::memset(launch.shared, 0xff, static_cast<std::size_t>(shared));
                    run_block(launch);
                }
            }
        }
    } catch (...) {
        current = nullptr;
        throw;
    }
    current = nullptr;
}

void set_reversed(bool is_reversed) { is_reversed_order = is_reversed; }
unsigned char* shared_memory() { return current->shared; }
const dim3& thread_index() { return own().index; }
const dim3& block_index() { return current->block; }
const dim3& block_size() { return current->block_size; }
const dim3& grid_size() { return current->grid; }
int lane() { return static_cast<int>(current->running % kWarp); }
std::uint64_t* warp_slots() { return current->warps[current->running / kWarp].slots; }

void block_barrier(const char* file, int line) { wait(State::kAtBlockBarrier, file, line); }
void warp_barrier(const char* file, int line) { wait(State::kAtWarpBarrier, file, line); }

}  // namespace hwnas_shim

namespace nvcuda::wmma {

void check_address(const void* address, std::size_t pitch_bytes) {
    if (reinterpret_cast<std::uintptr_t>(address) % 32 != 0 || pitch_bytes % 16 != 0) {
        std::abort();  // inside a kernel: nothing can be thrown through a fiber
    }
}

}  // namespace nvcuda::wmma
