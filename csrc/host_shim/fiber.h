// One stack and what it takes to go there and back.
#pragma once

#include <cstddef>

namespace hwnas_shim {

class Fiber {
  public:
    Fiber();
    ~Fiber();
    Fiber(Fiber&& other) noexcept;
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    // The next enter() begins `body`, which must not throw. What ran here before is forgotten.
    void start(void (*body)());

    // Runs the fiber until it leaves or its body returns.
    void enter();

    // Called on the fiber: go back to where enter() was called.
    void leave();

    struct Context;

  private:
    Context* context_;
};

}  // namespace hwnas_shim
