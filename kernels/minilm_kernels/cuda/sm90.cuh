// What only Hopper has, a function each: barriers in shared memory that also count bytes, the copy engine (TMA) that
// fetches a box of a tensor by itself, and matrix products of a whole warpgroup (four warps) straight from shared
// memory (wgmma). Compiled for sm_90a alone. The names and rules are those of the PTX ISA, chapters "mbarrier",
// "cp.async.bulk.tensor" and "Asynchronous warpgroup level matrix".
//
// A shared memory address is a `u32`, counted from where the block's shared memory begins.
#pragma once
#include "common.cuh"

// A CUtensorMap: where a tensor lies and which box of it a copy takes, written by the driver, read by the copy engine.
// A kernel takes it as `const __grid_constant__ TensorMap`, so that it has an address that the engine can read. CUDA 12's
// header aligns it to 64 bytes, CUDA 13's to 128.
struct alignas(128) TensorMap {
    u64 opaque[16];
};

// Shared memory that wgmma reads lies in panels of 64 columns of 16 bits, 128 bytes a row. So that the eight rows that
// are read at once fall into different banks, the 16-byte chunks of row r are stored in the order c ^ (r % 8); the copy
// engine writes them so (CU_TENSOR_MAP_SWIZZLE_128B), and the product undoes it by the same rule on address bits, for
// which a panel must begin at a multiple of 1024 bytes.
#define PANEL_COLUMNS 64
#define PANEL_ROW_BYTES 128

// Where 16 bits at (row, column) of such a panel lie, in bytes from its begin.
__device__ __forceinline__ u32 swizzled(u32 row, u32 column) {
    return row * PANEL_ROW_BYTES + (((column / 8) ^ (row % 8)) * 16) + column % 8 * 2;
}

// The 64 bits by which wgmma finds a matrix: the address in units of 16 bytes (14 bits), at bit 16 the leading and at
// bit 32 the stride byte offset in the same units, at bit 62 the kind of swizzle, 1 for 128 bytes. From one group of
// eight rows to the next it is always 8 * 128 bytes here: the stride offset. The leading offset leads from one panel to
// the next; only a matrix whose contiguous dimension is not the one summed over (V) can be wider than a panel.
__device__ __forceinline__ u64 matrix_descriptor(u32 address, u32 panel_bytes) {
    return (u64)((address & 0x3FFFF) >> 4) | (u64)(panel_bytes >> 4) << 16 |
           (u64)(8 * PANEL_ROW_BYTES >> 4) << 32 | 1ull << 62;
}

#ifndef MINILM_HOST

__device__ __forceinline__ u32 shared_offset(const void* pointer) {
    return (u32)__cvta_generic_to_shared(pointer);
}

// ---- Barriers. One completes a phase when `arrivals` threads have arrived and all bytes announced have come. Waiting
// names the parity of the phase waited for: 0 for the first. A fresh barrier counts as one whose phase of parity 1 is
// over, so that who waits for "empty" starts with parity 1 and passes.

__device__ __forceinline__ void barrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// After all barrier_init, before the __syncthreads() that shows the barriers to other threads: the copy engine, too,
// must see them.
__device__ __forceinline__ void barrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and announces that so many bytes will come by copies.
__device__ __forceinline__ void barrier_arrive_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Whether the phase of this parity is over; sleeps a little while it is not.
__device__ __forceinline__ bool barrier_try_wait(u32 barrier, u32 parity) {
    u32 done;
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.b32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
    return done;
}

// ---- The block's sixteen numbered barriers (0 is __syncthreads()). `threads` counts those that wait and those that
// only arrive, whole warps of either.

__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- The copy engine. One thread asks for a box; the coordinates count from the innermost dimension. What lies outside
// the tensor arrives as zeros, and is counted in bytes all the same; on the way out it is left unwritten.

__device__ __forceinline__ void tensor_map_prefetch(const TensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

__device__ __forceinline__ void copy_box_in(
    u32 to, const TensorMap* map, u32 barrier, int column, int row, int head, int batch) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
        "l"(map), "r"(barrier), "r"(column), "r"(row), "r"(head), "r"(batch)
        : "memory");
}

__device__ __forceinline__ void copy_box_out(
    const TensorMap* map, u32 from, int column, int row, int head, int batch) {
    asm volatile(
        "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(map),
        "r"(from), "r"(column), "r"(row), "r"(head), "r"(batch)
        : "memory");
}

__device__ __forceinline__ void copies_out_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Until the engine has read all that this thread has asked it to copy out: then the shared memory may be reused.
__device__ __forceinline__ void copies_out_wait_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

// The copy engine and wgmma read shared memory by a path of their own (the asynchronous proxy). Who has written it by
// ordinary stores calls this before the barrier after which it is read on that path.
__device__ __forceinline__ void async_proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- Registers. A warpgroup that only asks for copies gives its registers to those that compute; all four warps.

template <int COUNT> __device__ __forceinline__ void registers_decrease() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT> __device__ __forceinline__ void registers_increase() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// ---- wgmma: d (64 x N, float32) += a (64 x 16) b (16 x N), by 128 threads together, in the background. Order:
// wgmma_fence, products, wgmma_commit, other work, wgmma_wait. Until that wait the threads may not touch d, nor
// a in registers, nor may anybody overwrite the shared memory it reads. Warp w of the four has rows 16 w to 16 w + 15;
// of its lanes, lane l has of d the rows l / 4 (d[4 j], d[4 j + 1]) and l / 4 + 8 (d[4 j + 2], d[4 j + 3]), columns
// 8 j + l % 4 * 2 and the next.

// Before the first product after registers that it takes part of (d, a) were touched by anything else.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Closes a group of products.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until at most PENDING of the groups committed last are still under way.
template <int PENDING> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// The compiler takes a product's results to be there at once; nothing but this keeps what reads or writes `registers`
// on its side of the wait. No instruction comes of it.
template <int COUNT> __device__ __forceinline__ void wgmma_keep(float (&registers)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(registers[i])::"memory");
}

template <int COUNT> __device__ __forceinline__ void wgmma_keep(u32 (&registers)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+r"(registers[i])::"memory");
}

// The instruction names every register of d: %0 to %(N / 2 - 1), eight to a line.
#define D8(a, b, c, d, e, f, g, h) "%" #a ",%" #b ",%" #c ",%" #d ",%" #e ",%" #f ",%" #g ",%" #h
#define NAMES_32                                                             \
    D8(0, 1, 2, 3, 4, 5, 6, 7) "," D8(8, 9, 10, 11, 12, 13, 14, 15) "," D8( \
        16, 17, 18, 19, 20, 21, 22, 23) "," D8(24, 25, 26, 27, 28, 29, 30, 31)
#define NAMES_40 NAMES_32 "," D8(32, 33, 34, 35, 36, 37, 38, 39)
#define NAMES_48 NAMES_40 "," D8(40, 41, 42, 43, 44, 45, 46, 47)
#define NAMES_64 NAMES_48 "," D8(48, 49, 50, 51, 52, 53, 54, 55) "," D8(56, 57, 58, 59, 60, 61, 62, 63)
#define NAMES_88                                                                                           \
    NAMES_64 "," D8(64, 65, 66, 67, 68, 69, 70, 71) "," D8(72, 73, 74, 75, 76, 77, 78, 79) "," D8( \
        80, 81, 82, 83, 84, 85, 86, 87)
#define NAMES_96 NAMES_88 "," D8(88, 89, 90, 91, 92, 93, 94, 95)
#define NAMES_128                                                                                                      \
    NAMES_96 "," D8(96, 97, 98, 99, 100, 101, 102, 103) "," D8(104, 105, 106, 107, 108, 109, 110, 111) "," D8( \
        112, 113, 114, 115, 116, 117, 118, 119) "," D8(120, 121, 122, 123, 124, 125, 126, 127)

#define F8(i)                                                                                             \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
        "+f"(d[i + 7])
#define REGISTERS_32 F8(0), F8(8), F8(16), F8(24)
#define REGISTERS_40 REGISTERS_32, F8(32)
#define REGISTERS_48 REGISTERS_40, F8(40)
#define REGISTERS_64 REGISTERS_48, F8(48), F8(56)
#define REGISTERS_88 REGISTERS_64, F8(64), F8(72), F8(80)
#define REGISTERS_96 REGISTERS_88, F8(88)
#define REGISTERS_128 REGISTERS_96, F8(96), F8(104), F8(112), F8(120)

// wgmma: a and b in shared memory, both with the dimension that is summed over contiguous; with `accumulate` 0, d = a b.
// wgmma_transposed: a in registers, laid out as two neighbouring eights of d's columns are (d[8 k] to d[8 k + 7], two
// numbers to a register); b in shared memory with its N columns contiguous.
#define WGMMA(TYPE, N, COUNT, P0, P1, P2, P3, P4)                                                                   \
    __device__ __forceinline__ void wgmma(TYPE, float (&d)[COUNT], u64 a, u64 b, u32 accumulate) {                  \
        asm volatile(                                                                                               \
            "{\n.reg .pred p;\nsetp.ne.u32 p, %" #P2 ", 0;\n"                                                       \
            "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #TYPE "." #TYPE " {" NAMES_##COUNT "}, %" #P0 ", %"   \
            #P1 ", p, 1, 1, 0, 0;\n}"                                                                               \
            : REGISTERS_##COUNT                                                                                     \
            : "l"(a), "l"(b), "r"(accumulate));                                                                     \
    }                                                                                                               \
    __device__ __forceinline__ void wgmma_transposed(                                                               \
        TYPE, float (&d)[COUNT], u32 a0, u32 a1, u32 a2, u32 a3, u64 b) {                                           \
        asm volatile(                                                                                               \
            "{\n.reg .pred p;\nsetp.eq.u32 p, 0, 0;\n"                                                              \
            "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #TYPE "." #TYPE " {" NAMES_##COUNT "}, {%" #P0 ",%"   \
            #P1 ",%" #P2 ",%" #P3 "}, %" #P4 ", p, 1, 1, 1;\n}"                                                     \
            : REGISTERS_##COUNT                                                                                     \
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));                                                          \
    }
#define WGMMA_BOTH(N, COUNT, ...)     \
    WGMMA(bf16, N, COUNT, __VA_ARGS__) \
    WGMMA(f16, N, COUNT, __VA_ARGS__)

WGMMA_BOTH(64, 32, 32, 33, 34, 35, 36)
WGMMA_BOTH(80, 40, 40, 41, 42, 43, 44)
WGMMA_BOTH(96, 48, 48, 49, 50, 51, 52)
WGMMA_BOTH(128, 64, 64, 65, 66, 67, 68)
WGMMA_BOTH(176, 88, 88, 89, 90, 91, 92)
WGMMA_BOTH(192, 96, 96, 97, 98, 99, 100)
WGMMA_BOTH(256, 128, 128, 129, 130, 131, 132)

#endif

__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
    while (!barrier_try_wait(barrier, parity)) {
    }
}

// Two floats in the 16 bits each of an operand in registers.
__device__ __forceinline__ u32 two_bits(bf16, float low, float high) { return bf16x2_bits(low, high); }
__device__ __forceinline__ u32 two_bits(f16, float low, float high) { return f16x2_bits(low, high); }
