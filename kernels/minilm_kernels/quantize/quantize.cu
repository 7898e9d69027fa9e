// Numbers as blocks of 32: a thread makes a quarter of a block. The rounding of each step is part of the format, so no
// product may be contracted with a sum, nor a division be a multiplication.
#include "blocks.cuh"

// 1 / d, and 0 for a d so small that 1 / d would overflow: as a float16 that is zero too.
__device__ __forceinline__ float reciprocal(float d) { return fabsf(d) >= 0x1p-126f ? 1 / d : 0.0f; }

// The nearest integer, halves away from zero.
__device__ __forceinline__ int rounded(float x) {
    const float whole = truncf(x);
    return int(whole) + (fabsf(x - whole) >= 0.5f ? (x < 0 ? -1 : 1) : 0);
}

__device__ __forceinline__ u32 nibble(float x, float inverse, float shift) {
    return u32(fminf(__fadd_rn(__fmul_rn(x, inverse), shift), 15.0f));
}

// The first of the block's numbers that is as large as any, on either side of zero.
__device__ __forceinline__ float first_largest(const float (&w)[PART], int part) {
    float largest = 0;
    int at = BLOCK;
#pragma unroll
    for (int j = 0; j < PART; ++j)
        if (fabsf(w[j]) > fabsf(largest)) {
            largest = w[j];
            at = place(part, j);
        }
#pragma unroll
    for (int distance = 1; distance < LANES; distance *= 2) {
        const float other = __shfl_xor_sync(ALL_LANES, largest, distance);
        const int there = __shfl_xor_sync(ALL_LANES, at, distance);
        if (fabsf(other) > fabsf(largest) || (fabsf(other) == fabsf(largest) && there < at)) {
            largest = other;
            at = there;
        }
    }
    return largest;
}

// What f makes of all of the block's numbers, two by two.
template <class F>
__device__ __forceinline__ float of_block(const float (&w)[PART], F f) {
    float x = w[0];
#pragma unroll
    for (int j = 1; j < PART; ++j) x = f(x, w[j]);
#pragma unroll
    for (int distance = 1; distance < LANES; distance *= 2) x = f(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

// `count` is four times the number of blocks. Lanes past it go along until all have exchanged their numbers.
extern "C" __global__ __launch_bounds__(256) void quantize(const SCALAR* weight, u8* blocks, i64 count) {
    const i64 thread = i64(blockIdx.x) * blockDim.x + threadIdx.x, number = thread / LANES;
    const int part = thread % LANES;
    float w[PART];
#pragma unroll
    for (int j = 0; j < PART; ++j)  // + 0: a zero's sign would go into the scale
        w[j] = thread < count ? to_float(weight[number * BLOCK + place(part, j)]) + 0.0f : 0.0f;

    float d, low = 0;
    if (FORMAT == 80) {
        d = of_block(w, [](float a, float b) { return fmaxf(fabsf(a), fabsf(b)); }) / 127;
    } else if (FORMAT == 40) {
        d = first_largest(w, part) / -8;
    } else {
        low = of_block(w, [](float a, float b) { return fminf(a, b); });
        d = (of_block(w, [](float a, float b) { return fmaxf(a, b); }) - low) / 15;
    }
    if (thread >= count) return;

    const float inverse = reciprocal(d);
    u16* block = reinterpret_cast<u16*>(blocks + number * BYTES);  // an even address
    u16* to = block + HEAD / 2 + part * (FORMAT == 80 ? PART / 2 : PART / 4);
    if (FORMAT == 80) {
#pragma unroll
        for (int j = 0; j < PART; j += 2)
            to[j / 2] = u16(u8(rounded(__fmul_rn(w[j], inverse))) | u8(rounded(__fmul_rn(w[j + 1], inverse))) << 8);
    } else {
        const float shift = FORMAT == 40 ? 8.5f : 0.5f;
        u32 bytes = 0;
#pragma unroll
        for (int j = 0; j < PART; ++j) bytes |= nibble(w[j] - low, inverse, shift) << (8 * (j % 4) + 4 * (j / 4));
        to[0] = u16(bytes);
        to[1] = u16(bytes >> 16);
    }
    if (part == 0) {
        block[0] = f16_bits(d);
        if (FORMAT == 41) block[1] = f16_bits(low);
    }
}
