// Memory that is needed soon, brought into the cache a few lines at a time between micro-kernels:
// products of a tile hide the time that the next tile's values take.
// Include from kernel files only.
#pragma once

#include "cpu/kernels/periodic.h"

namespace hwnas {
namespace HWNAS_ISA {

struct FetchRun {
    const char* at;
    const char* end;
};

class Fetch {
  public:
    // Floats that `runs` runs take.
    static std::int64_t floats(int runs) {
        return aligned_floats(runs * static_cast<std::int64_t>(sizeof(FetchRun) / sizeof(float)));
    }

    explicit Fetch(float* memory) : runs_(reinterpret_cast<FetchRun*>(memory)) {}

    // Forgets what is left. The new runs are spread over as many calls as there were since the last
    // time.
    void start() {
        most_calls_ = calls_;
        count_ = next_ = 0;
        lines_ = calls_ = 0;
    }

    void add(const float* from, std::int64_t floats) {
        const char* const at = reinterpret_cast<const char*>(from);
        runs_[count_++] = {at, at + floats * 4};
        lines_ += static_cast<int>(floats / 16) + 1;
    }

    // Fetches the next lines: `share` times what is due in a call.
    void operator()(int share) {
        constexpr int kFirst = 16;
        calls_ += share;
        int due = share * (most_calls_ > 0 ? lines_ / most_calls_ + 1 : kFirst);
        while (due > 0 && next_ < count_) {
            FetchRun& run = runs_[next_];
            for (; due > 0 && run.at < run.end; --due, run.at += 64) {
                __builtin_prefetch(run.at, 0, 3);
            }
            next_ += run.at < run.end ? 0 : 1;
        }
    }

  private:
    FetchRun* runs_;
    int count_ = 0;
    int next_ = 0;
    int lines_ = 0;
    int calls_ = 0;
    int most_calls_ = 0;
};

// A sink that hands tiles on and then fetches.
template <class Sink>
struct FetchingSink {
    Sink sink;
    Fetch& fetch;

    template <int M, int N>
    inline __attribute__((always_inline)) void take(Vec (&acc)[M][N], int pixel, int vector) {
        sink.template take<M, N>(acc, pixel, vector);
        fetch(1);
    }
};

}  // namespace HWNAS_ISA
}  // namespace hwnas
