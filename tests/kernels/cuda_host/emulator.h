// A CUDA grid on one CPU core: the same .cu files compiled by g++, each thread of a block a fiber, blocks in turn.
//
// A fiber runs until it waits (a barrier, a shuffle), then the next one of its warp does, and the next warp when this one
// can't go on: a missing barrier shows as a wrong result, one that not all threads reach as a deadlock that is named.
// Shared memory is filled with NaN (all bits set) before each block, and arrays end at pages that must not be touched.
// What the hardware would do at the same time happens in the order of thread numbers, or in the reverse order, and so do
// blocks: a correct kernel gives the same results in both.
//
// To add an instruction: its wrapper stands in kernels/minilm_kernels/cuda/ptx.cuh (or sm90.cuh), where MINILM_HOST is
// not defined, and its emulation, a function of the same name and parameters, in ptx_host.h (sm90_host.h). What it can
// build on:
//   emulator::gather(what, mask, value)   each lane of a warp gives a value and sees those of all others
//   emulator::wait_until(what, ready)     the fiber sleeps until ready() is true: an mbarrier's phase, a copy's end
//   emulator::barrier(id, count)          a named barrier of `count` threads (bar.sync); 0 is __syncthreads'
//   emulator::current->number             the thread's number in its block; emulator::block_count how many blocks have been started, ever
//   emulator::fail(text)                  ends the launch with an error: what PTX calls undefined is an error here
#ifndef MINILM_EMULATOR  // not `#pragma once`, for this file is compiled by itself
#define MINILM_EMULATOR
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

struct uint3 {
    unsigned x, y, z;
};
struct dim3 : uint3 {
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : uint3{x, y, z} {}
};

namespace emulator {

constexpr int WARP_SIZE = 32, MAX_THREADS = 1024, BARRIERS = 16, GATHERED = 128, MASKS = 4;
constexpr unsigned MAX_GRID = 65535;
constexpr size_t STACK = 256 * 1024, MAX_SHARED = 232448;

struct Thread {
    ucontext_t context;
    jmp_buf place;
    void* stack;
    unsigned number;
    uint3 index;
    bool started, ended, polite;  // polite: other warps come first
    bool (*ready)(void*);  // asked before the fiber goes on; null if it may at once
    void* argument;
    const char* what;  // it waits for
};

struct Barrier {
    unsigned arrived, generation;
};

// The lanes of one mask of a warp, exchanging values; those of two generations, as a fast lane is one ahead at most.
struct Meeting {
    uint32_t mask, arrived;
    unsigned generation;
    const char* what;
    unsigned char values[2][WARP_SIZE][GATHERED];
};

inline Thread threads[MAX_THREADS];
inline Thread* current;
inline Barrier barriers[BARRIERS];
inline Meeting meetings[MAX_THREADS / WARP_SIZE][MASKS];
inline dim3 grid, block;
inline uint3 block_index;
inline unsigned thread_count, block_count;
inline unsigned char *shared_pages, *shared_begin;
inline size_t shared_room;
inline void (*body)(void**);
inline void** body_arguments;
inline jmp_buf scheduler;
inline char message[512];

inline void* dynamic_shared() { return shared_begin; }

[[noreturn]] inline void fail(const char* text) {
    snprintf(message, sizeof message, "block (%u, %u, %u), thread %u: %s", block_index.x, block_index.y, block_index.z,
             current ? current->number : 0, text);
    _longjmp(scheduler, 2);
}

__attribute__((noinline)) inline void yield() {
    if (!_setjmp(current->place)) _longjmp(scheduler, 1);
}

// Others come first.
inline void yield_to_others() {
    current->polite = true;
    yield();
}

template <class Ready>
inline void wait_until(const char* what, Ready ready) {
    if (ready()) return;
    current->ready = [](void* argument) { return (*static_cast<Ready*>(argument))(); };
    current->argument = &ready;
    current->what = what;
    yield();
}

inline void arrive(unsigned id, unsigned count) {
    if (id >= BARRIERS) fail("there are 16 barriers");
    if (++barriers[id].arrived == count) barriers[id].arrived = 0, ++barriers[id].generation;
}

inline void barrier(unsigned id, unsigned count, const char* what = "a named barrier") {
    if (id >= BARRIERS) fail("there are 16 barriers");
    unsigned generation = barriers[id].generation;
    arrive(id, count);
    wait_until(what, [=] { return barriers[id].generation != generation; });
}

inline unsigned lane() { return current->number % WARP_SIZE; }

// What all lanes in `mask` gave, by lane; valid until the calling fiber waits again.
template <class T>
inline const T* gather(const char* what, uint32_t mask, const T& value) {
    static_assert(sizeof(T) <= GATHERED, "GATHERED is too small");
    unsigned warp = current->number / WARP_SIZE;
    if (warp * WARP_SIZE + WARP_SIZE > thread_count) fail("a block whose last warp is not whole can't exchange values");
    if (!(mask >> lane() & 1)) fail("a lane calls with a mask that it is not in");
    Meeting* meeting = meetings[warp];
    while (meeting->mask != 0 && meeting->mask != mask)
        if (++meeting == meetings[warp] + MASKS) fail("a warp uses more than four masks");
    meeting->mask = mask;
    if (meeting->arrived != 0 && strcmp(meeting->what, what) != 0) {
        static char text[200];
        snprintf(text, sizeof text, "lanes of a warp meet at %s and at %s", meeting->what, what);
        fail(text);
    }
    meeting->what = what;
    unsigned generation = meeting->generation;
    auto& values = meeting->values[generation % 2];
    memcpy(values[lane()], &value, sizeof(T));
    meeting->arrived |= 1u << lane();
    if (meeting->arrived == mask) meeting->arrived = 0, ++meeting->generation;
    wait_until(what, [=] { return meeting->generation != generation; });
    static T packed[WARP_SIZE];
    for (int i = 0; i < WARP_SIZE; ++i) memcpy(&packed[i], values[i], sizeof(T));
    return packed;
}

// A fiber's life: one thread of each block in turn.
inline void fiber() {
    for (;;) {
        body(body_arguments);
        current->ended = true;
        yield();
    }
}

inline void start(Thread& thread) {
    if (thread.stack == nullptr)
        thread.stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack;
    thread.context.uc_stack.ss_size = STACK;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, fiber, 0);
    thread.started = true;
    setcontext(&thread.context);
}

__attribute__((noinline)) inline int resume(Thread& thread) {
    current = &thread;
    int how = _setjmp(scheduler);
    if (how == 0) {
        if (thread.started) _longjmp(thread.place, 1);
        start(thread);
    }
    current = nullptr;
    return how;
}

inline void describe_deadlock() {
    int length = snprintf(message, sizeof message, "deadlock in block (%u, %u, %u):", block_index.x, block_index.y,
                          block_index.z);
    bool told[MAX_THREADS] = {};
    for (unsigned i = 0; i < thread_count; ++i) {
        if (told[i]) continue;
        const char* what = threads[i].ended ? nullptr : threads[i].what;
        unsigned count = 0;
        for (unsigned j = i; j < thread_count; ++j)
            if ((threads[j].ended ? nullptr : threads[j].what) == what) told[j] = true, ++count;
        if (length < int(sizeof message))
            length += snprintf(message + length, sizeof message - length, " %u of %u threads %s%s (the first is %u);",
                               count, thread_count, what ? "wait at " : "have ended", what ? what : "", i);
    }
}

extern "C" unsigned char __start_minilm_shared[] __attribute__((weak, visibility("hidden")));
extern "C" unsigned char __stop_minilm_shared[] __attribute__((weak, visibility("hidden")));

inline bool run_block(bool descending) {
    ++block_count;
    memset(barriers, 0, sizeof barriers);
    for (auto& warp : meetings)
        for (auto& meeting : warp) meeting.mask = meeting.arrived = 0;
    memset(shared_pages, 0xff, shared_room);
    if (__start_minilm_shared) memset(__start_minilm_shared, 0xff, __stop_minilm_shared - __start_minilm_shared);
    for (unsigned i = 0; i < thread_count; ++i) {
        Thread& thread = threads[i];
        thread.number = i, thread.ended = thread.polite = false, thread.ready = nullptr;
        thread.index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    }
    const unsigned warps = (thread_count + WARP_SIZE - 1) / WARP_SIZE;
    for (unsigned left = thread_count; left > 0;) {
        bool moved = false;
        for (unsigned w = 0; w < warps; ++w) {
            const unsigned first = (descending ? warps - 1 - w : w) * WARP_SIZE;
            const unsigned lanes = thread_count - first < WARP_SIZE ? thread_count - first : WARP_SIZE;
            for (unsigned i = 0; i < lanes; ++i) threads[first + i].polite = false;
            for (bool again = true; again;) {  // a warp goes as far as it can before the next one does
                again = false;
                for (unsigned i = 0; i < lanes; ++i) {
                    Thread& thread = threads[first + (descending ? lanes - 1 - i : i)];
                    if (thread.ended || thread.polite || (thread.ready && !thread.ready(thread.argument))) continue;
                    thread.ready = nullptr;
                    again = moved = true;
                    if (resume(thread) == 2) return false;
                    left -= thread.ended;
                }
            }
        }
        if (!moved) return describe_deadlock(), false;
    }
    return true;
}

inline void on_signal(int number, siginfo_t* info, void*) {
    if (current == nullptr) signal(number, SIG_DFL), raise(number);  // not the kernel's doing
    char text[200];
    if (number == SIGSEGV || number == SIGBUS)
        snprintf(text, sizeof text, "touches the address %p, which is out of bounds", info->si_addr);
    else if (number == SIGILL)
        snprintf(text, sizeof text, "an address that is not aligned, or an index out of an array's bounds");
    else
        snprintf(text, sizeof text, "an integer divided by zero");
    fail(text);
}

// Runs the grid; false with `message` set if it failed.
inline bool run(const unsigned* grid_size, const unsigned* block_size, size_t shared_bytes, bool descending) {
    constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    grid = dim3(grid_size[0], grid_size[1], grid_size[2]), block = dim3(block_size[0], block_size[1], block_size[2]);
    thread_count = block.x * block.y * block.z;
    if (thread_count == 0 || thread_count > MAX_THREADS || shared_bytes > MAX_SHARED) {
        snprintf(message, sizeof message, "a block of %u threads with %zu shared bytes", thread_count, shared_bytes);
        return false;
    }
    if (grid.y > MAX_GRID || grid.z > MAX_GRID) {
        snprintf(message, sizeof message, "a grid of %u x %u x %u blocks; y and z go to %u", grid.x, grid.y, grid.z,
                 MAX_GRID);
        return false;
    }
    size_t page = size_t(sysconf(_SC_PAGESIZE)), room = (MAX_SHARED + page - 1) / page * page;
    shared_room = room;
    shared_pages = static_cast<unsigned char*>(
        mmap(nullptr, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(shared_pages + room, page, PROT_NONE);
    // Up to the last page's end, so that what lies behind is out of bounds; aligned as the size is: to 1024 at most.
    size_t alignment = shared_bytes % 1024 == 0 ? 1024 : shared_bytes & -shared_bytes;
    alignment = alignment < 16 ? 16 : alignment;
    shared_begin = shared_pages + room - (shared_bytes + alignment - 1) / alignment * alignment;
    stack_t other = {}, former_stack;
    other.ss_size = 65536, other.ss_sp = malloc(other.ss_size);
    sigaltstack(&other, &former_stack);
    struct sigaction action = {}, former[4];
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 4; ++i) sigaction(SIGNALS[i], &action, &former[i]);
    for (auto& thread : threads) thread.started = false;
    bool good = true;
    const unsigned long long blocks = 1ull * grid.x * grid.y * grid.z;
    for (unsigned long long i = 0; i < blocks && good; ++i) {
        const unsigned long long n = descending ? blocks - 1 - i : i;
        block_index = {unsigned(n % grid.x), unsigned(n / grid.x % grid.y), unsigned(n / grid.x / grid.y)};
        good = run_block(descending);
    }
    for (int i = 0; i < 4; ++i) sigaction(SIGNALS[i], &former[i], nullptr);
    sigaltstack(&former_stack, nullptr);
    free(other.ss_sp);
    munmap(shared_pages, room + page);
    return good;
}

}  // namespace emulator

#include "language.h"
#include "ptx_host.h"
#if __has_include("sm90_host.h")
#include "sm90_host.h"
#endif
#include "kernels.h"
#endif
