#include "host_shim/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace {
// Frames are several times larger under a sanitizer.
constexpr std::size_t kStack = 256 * 1024;
}  // namespace

#if defined(__x86_64__)
// Keeps what the calling convention says a callee must keep, on the old stack.
asm(R"(
.text
.p2align 4
.globl hwnas_shim_switch
.hidden hwnas_shim_switch
.type hwnas_shim_switch, @function
hwnas_shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size hwnas_shim_switch, .-hwnas_shim_switch
)");
extern "C" void hwnas_shim_switch(void** save, void* load);
#endif

namespace hwnas_shim {

struct Fiber::Context {
    unsigned char* stack = nullptr;
    void (*body)() = nullptr;
    bool is_done = false;
#if defined(__x86_64__)
    void* inside = nullptr;
    void* outside = nullptr;
#else
    ucontext_t inside;
    ucontext_t outside;
#endif
    // What the address sanitizer wants to know of both stacks.
    void* fake_inside = nullptr;
    void* fake_outside = nullptr;
    const void* outer_stack = nullptr;
    std::size_t outer_size = 0;

    void go_in();
    void go_out();
    static void begin();
};

namespace {

Fiber::Context* entering = nullptr;

void before_switch([[maybe_unused]] void** fake, [[maybe_unused]] const void* stack,
                   [[maybe_unused]] std::size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fake, stack, size);
#endif
}

void after_switch([[maybe_unused]] void* fake, [[maybe_unused]] const void** stack,
                  [[maybe_unused]] std::size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, stack, size);
#endif
}

}  // namespace

void Fiber::Context::go_in() {
    entering = this;
    before_switch(&fake_outside, stack, kStack);
#if defined(__x86_64__)
    hwnas_shim_switch(&outside, inside);
#else
    swapcontext(&outside, &inside);
#endif
    after_switch(fake_outside, nullptr, nullptr);
}

void Fiber::Context::go_out() {
    before_switch(is_done ? nullptr : &fake_inside, outer_stack, outer_size);
#if defined(__x86_64__)
    hwnas_shim_switch(&inside, outside);
#else
    swapcontext(&inside, &outside);
#endif
    after_switch(fake_inside, &outer_stack, &outer_size);
}

void Fiber::Context::begin() {
    Context* const self = entering;
    after_switch(nullptr, &self->outer_stack, &self->outer_size);
    self->body();
    self->is_done = true;
    self->go_out();
    std::abort();  // nobody enters a fiber whose body has returned
}

Fiber::Fiber() : context_(new Context) {
    void* const memory =
        mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        delete context_;
        throw std::bad_alloc();
    }
    context_->stack = static_cast<unsigned char*>(memory);
}

Fiber::~Fiber() {
    if (context_ != nullptr) {
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(context_->stack, kStack);
#endif
        munmap(context_->stack, kStack);
        delete context_;
    }
}

Fiber::Fiber(Fiber&& other) noexcept : context_(std::exchange(other.context_, nullptr)) {}

void Fiber::start(void (*body)()) {
    context_->body = body;
    context_->is_done = false;
    context_->fake_inside = nullptr;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(context_->stack, kStack);
#endif
#if defined(__x86_64__)
    // Six registers, the address that `ret` goes to, and one word that a caller would have pushed:
    // the stack pointer is then 8 off a multiple of 16, as a function expects.
    auto** top = reinterpret_cast<void**>(context_->stack + kStack);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&Context::begin);
    for (int i = 0; i < 6; ++i) {
        *--top = nullptr;
    }
    context_->inside = top;
#else
    getcontext(&context_->inside);
    context_->inside.uc_stack.ss_sp = context_->stack;
    context_->inside.uc_stack.ss_size = kStack;
    context_->inside.uc_link = nullptr;
    makecontext(&context_->inside, &Context::begin, 0);
#endif
}

void Fiber::enter() { context_->go_in(); }
void Fiber::leave() { context_->go_out(); }

}  // namespace hwnas_shim
