// What all kernels share: sized types, the 16-bit floating-point types, vector loads, sums over a warp and a block.
//
// No header of CUDA or of the C++ library is included anywhere, so that NVRTC alone is enough. All inline PTX stands in
// ptx.cuh and sm90.cuh, one instruction a function: where MINILM_HOST is defined the tests' emulator compiles these
// files with g++ and gives those functions itself.
#pragma once
#include "ptx.cuh"

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i8 = signed char;
using i32 = int;
using i64 = long long;

// A block's dynamic shared memory as an array of `type`; its size is given at launch.
#ifdef MINILM_HOST
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulator::dynamic_shared())
#else
#define DYNAMIC_SHARED(type, name)                                   \
    extern __shared__ __align__(1024) unsigned char dynamic_shared[]; \
    type* name = reinterpret_cast<type*>(dynamic_shared)
#endif

#ifndef INFINITY  // which C++ has in a header
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
#endif

// Stored in 16 bits, computed with in float.
struct f16 {
    u16 bits;
};
struct bf16 {
    u16 bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(f16 x) { return f16_value(x.bits); }
__device__ __forceinline__ float to_float(bf16 x) { return bf16_value(x.bits); }

// from_float<T>(x): rounded to nearest, ties to even.
template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ f16 from_float<f16>(float x) {
    return f16{f16_bits(x)};
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
    return bf16{bf16_bits(x)};
}

// N numbers in one load or store; N * sizeof(T) is a power of two of at most 16 bytes, and the address a multiple of it.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T at[N];
};

constexpr int WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;

__device__ __forceinline__ int lane_id() { return threadIdx.x % WARP; }
__device__ __forceinline__ int warp_id() { return threadIdx.x / WARP; }

// A number that is the same in all lanes, so that the compiler knows it.
__device__ __forceinline__ int uniform(int x) { return __shfl_sync(ALL_LANES, x, 0); }

template <class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

// The larger of two, NaN if one is: fmaxf would lose it.
__device__ __forceinline__ float max_or_nan(float a, float b) { return a > b || a != a ? a : b; }

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        x = max_or_nan(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

// The sum over a block of whole warps, in every thread, in a fixed order. `scratch` is shared, one T a warp, and may
// be used again at once.
template <class T>
__device__ __forceinline__ T block_sum(T x, T* scratch) {
    x = warp_sum(x);
    if (lane_id() == 0) scratch[warp_id()] = x;
    __syncthreads();
    T total = 0;
    for (int warp = 0; warp < int(blockDim.x) / WARP; ++warp) total += scratch[warp];
    __syncthreads();
    return total;
}

__device__ __forceinline__ float block_max(float x, float* scratch) {
    x = warp_max(x);
    if (lane_id() == 0) scratch[warp_id()] = x;
    __syncthreads();
    float largest = scratch[0];
    for (int warp = 1; warp < int(blockDim.x) / WARP; ++warp) largest = max_or_nan(largest, scratch[warp]);
    __syncthreads();
    return largest;
}
