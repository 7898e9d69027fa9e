// Passes over one row of numbers by a whole block, with full packs wherever the row lies in memory; and the softmax's
// first half, which is such a pass.
#pragma once
#include "common.cuh"

constexpr int PACK = 16 / sizeof(SCALAR);

// Calls f(values, index of the first, count) for the whole row, the block's threads in turn: numbers one by one up to the
// first multiple of 16 bytes, then packs, then what is left. Without `packed` all go one by one. f(i, x) has to treat
// an array of any length.
template <class F>
__device__ __forceinline__ void for_each_pack(const SCALAR* row, int columns, bool packed, F f) {
    const int past = int(reinterpret_cast<u64>(row) / sizeof(SCALAR) % PACK);
    const int head = packed ? min(columns, (PACK - past) % PACK) : columns;
    const int packs = (columns - head) / PACK, tail = head + packs * PACK;
    for (int i = threadIdx.x; i < head; i += blockDim.x) {
        float x[1] = {to_float(row[i])};
        f(x, i);
    }
    for (int pack = threadIdx.x; pack < packs; pack += blockDim.x) {
        const int i = head + pack * PACK;
        const Pack<SCALAR, PACK> loaded = *reinterpret_cast<const Pack<SCALAR, PACK>*>(row + i);
        float x[PACK];
#pragma unroll
        for (int j = 0; j < PACK; ++j) x[j] = to_float(loaded.at[j]);
        f(x, i);
    }
    for (int i = tail + threadIdx.x; i < columns; i += blockDim.x) {
        float x[1] = {to_float(row[i])};
        f(x, i);
    }
}

// Stores what f of for_each_pack computed; `row` must be as far from a multiple of 16 bytes as the row that was read.
template <int N>
__device__ __forceinline__ void store_pack(SCALAR* row, int i, const float (&x)[N]) {
    Pack<SCALAR, N> pack;
#pragma unroll
    for (int j = 0; j < N; ++j) pack.at[j] = from_float<SCALAR>(x[j]);
    *reinterpret_cast<Pack<SCALAR, N>*>(row + i) = pack;
}

// exp(x): of 16 bits, by the card's own power of two, which is off by some 2^-22 and takes a tenth of expf's time.
__device__ __forceinline__ float exponential(float x) {
    return sizeof(SCALAR) == 2 ? exp2_approx(x * 1.4426950408889634f) : expf(x);
}

// The largest number so far, and the sum of exp(x - shift) over all, where shift is the largest, or 0 if that is infinite.
struct RunningSum {
    float largest = -INFINITY, sum = 0;

    __device__ static float shift(float largest) { return isinf(largest) ? 0.0f : largest; }
    __device__ float shift() const { return shift(largest); }

    // The sum as if the largest were `other`; 0 stays 0, for the factor may be infinite.
    __device__ float sum_for(float other) const {
        return sum == 0 ? 0.0f : sum * expf(shift(largest) - shift(other));
    }

    template <int N>
    __device__ __forceinline__ void add(const float (&x)[N]) {
        float next = largest;
#pragma unroll
        for (int j = 0; j < N; ++j) next = max_or_nan(next, x[j]);
        if (next != largest) {
            sum = sum_for(next);
            largest = next;
        }
#pragma unroll
        for (int j = 0; j < N; ++j) sum += exponential(x[j] - shift());
    }

    // That of all threads of the block, in each.
    __device__ __forceinline__ void combine(float* scratch) {
        const float all = block_max(largest, scratch);
        sum = block_sum(sum_for(all), scratch);
        largest = all;
    }
};
