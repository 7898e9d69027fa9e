// What CUDA C++ has and C++ has not: qualifiers, indices, vector types, barriers, shuffles, atomics, device functions.
#pragma once

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__
// In a section of its own, so that it can be filled with NaN before each block. An array in shared memory is declared in
// the kernel itself: that of a template or inline function would be put elsewhere.
#define __shared__ static __attribute__((section("minilm_shared")))

#define threadIdx (emulator::current->index)
#define blockIdx (emulator::block_index)
#define blockDim (emulator::block)
#define gridDim (emulator::grid)
constexpr int warpSize = 32;

#define MINILM_VECTOR(type, name)                                              \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };                   \
    struct alignas(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; }; \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }           \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
MINILM_VECTOR(float, float)
MINILM_VECTOR(double, double)
MINILM_VECTOR(int, int)
MINILM_VECTOR(unsigned, uint)
MINILM_VECTOR(unsigned short, ushort)
MINILM_VECTOR(unsigned char, uchar)
#undef MINILM_VECTOR

// Barriers and fences. Memory is that of one core: a fence has nothing to do.
inline void __syncthreads() { emulator::barrier(0, emulator::thread_count, "__syncthreads"); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::gather("__syncwarp", mask, char(0)); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) {}

// Shuffles among groups of `width` lanes, and votes.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    int lane = int(emulator::lane()), from = (lane & ~(width - 1)) | (source & (width - 1));
    return emulator::gather("__shfl_sync", mask, value)[from];
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    int lane = int(emulator::lane()), from = lane ^ bits;
    return emulator::gather("__shfl_xor_sync", mask, value)[from / width > lane / width ? lane : from];
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = int(emulator::lane()), from = lane - int(delta);
    return emulator::gather("__shfl_up_sync", mask, value)[from < (lane & ~(width - 1)) ? lane : from];
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = int(emulator::lane()), from = lane + int(delta);
    return emulator::gather("__shfl_down_sync", mask, value)[from > (lane | (width - 1)) ? lane : from];
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    const int* given = emulator::gather("__ballot_sync", mask, predicate);
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= unsigned((mask >> lane & 1) && given[lane]) << lane;
    return bits;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

// Atomics return what was there before.
template <class T>
T atomicAdd(T* address, T value) {
    T before = *address;
    *address = before + value;
    return before;
}
template <class T>
T atomicMax(T* address, T value) {
    T before = *address;
    *address = before > value ? before : value;
    return before;
}
template <class T>
T atomicMin(T* address, T value) {
    T before = *address;
    *address = before < value ? before : value;
    return before;
}
template <class T>
T atomicExch(T* address, T value) {
    T before = *address;
    *address = value;
    return before;
}
template <class T>
T atomicCAS(T* address, T expected, T value) {
    T before = *address;
    if (before == expected) *address = value;
    return before;
}

template <class A, class B>
constexpr auto min(A a, B b) {
    return b < a ? b : a;
}
template <class A, class B>
constexpr auto max(A a, B b) {
    return a < b ? b : a;
}

template <class To, class From>
inline To minilm_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &value, sizeof to);
    return to;
}
inline float __uint_as_float(unsigned x) { return minilm_bits<float>(x); }
inline float __int_as_float(int x) { return minilm_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return minilm_bits<unsigned>(x); }
inline int __float_as_int(float x) { return minilm_bits<int>(x); }

inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
template <class T>
inline T __ldg(const T* address) {
    return *address;
}
inline int __dp4a(int a, int b, int sum) {
    for (int i = 0; i < 32; i += 8) sum += int((signed char)(a >> i)) * int((signed char)(b >> i));
    return sum;
}
[[noreturn]] inline void __trap() { emulator::fail("__trap"); }
