// What the attention kernels are given, and which keys each query may see.
//
// Macros: SCALAR (float, f16 or bf16), HEAD_SIZE (32, 64, ... 256: the width of the tiles; the heads themselves may be
// narrower: NARROW), BLOCK_M queries and BLOCK_N keys to a tile, WARPS to a block; SOFT_CAP, BIAS, ALIBI, DROPOUT and ANY_SCALE
// where a setting is in use, so that what is not in use costs nothing.
#pragma once
#include "common.cuh"

#ifndef SOFT_CAP
#define SOFT_CAP 0
#endif
#ifndef BIAS
#define BIAS 0
#endif
#ifndef ALIBI
#define ALIBI 0
#endif
#ifndef DROPOUT
#define DROPOUT 0
#endif
#ifndef NARROW  // heads narrower than the tiles
#define NARROW 0
#endif
#ifndef ANY_SCALE  // a scale of zero or below, with which the largest product is not the largest score
#define ANY_SCALE 0
#endif

using Scalar = SCALAR;
constexpr int THREADS = WARP * WARPS;
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;
#define INFINITE __int_as_float(0x7f800000)

// (B, heads, length, head_size) in memory: how many elements lie between two batch rows, heads and rows.
struct Heads {
    Scalar* data;
    i64 batch, head, row;

    __device__ __forceinline__ Scalar* at(int b, int h, int t) const { return data + b * batch + h * head + t * row; }
};

// What backward_rows.cu says of sixteen queries of a head. The smallest tile of queries has as many.
constexpr int SIXTEEN = 16;
struct alignas(16) Rows {
    float logsumexp[SIXTEEN], product[SIXTEEN];  // in base 2, and rowsum(g * out)
    int first[SIXTEEN], stop[SIXTEEN], position[SIXTEEN];  // as Range has them
};

// As the dtype PROBLEM of cuda.py has it, field by field.
struct Problem {
    Heads q, k, v, out, g, dq, dk, dv;
    float* logsumexp;           // (B, H, T)
    Rows* rows;                 // (B, H, padded / 16)
    float* dq_sums;             // (B, H, padded, HEAD_SIZE), tile by tile as backward.cu has them
    int* turns;                 // (B, H, padded / 16): how many blocks have added to the tile's dq_sums ...
    int* tickets;               // ... and how many have begun
    const Scalar* bias;         // strides follow; 0 where it is broadcast
    i64 bias_batch, bias_head, bias_query, bias_key;
    float* d_bias;              // (B, H, T, S) or null
    const float* alibi_slopes;  // (B, H)
    const int* key_lengths;     // (B,) or null
    const int* starts;          // (sequences + 1,) or null: where packed sequences begin along T, ...
    const int* key_starts;      // ... and along S
    u64 seed;
    const u64* seed_at;         // or where it is, of a recorded graph whose seed changes; else null
    int B, H, group, T, S, head_size, sequences, left, right;  // left, right: of the window, < 0 for no end
    int padded, beside;         // T in whole tiles; key heads that backward.cu works on beside each other
    u32 threshold;              // dropout drops where its random number is below
    float keep;                 // what it multiplies the others by
    float scale, scale_log2, soft_cap;  // scale_log2: scale * log2 e
};

// Query t sees keys first to stop - 1, and stands at key `position`.
struct Range {
    int first, stop, position;
};

// As visible.py computes it. `first` and `stop` never decrease with t, packed sequences included: the keys that a tile of
// queries sees are those from its first row's `first` to its last row's `stop`.
__device__ __forceinline__ Range visible(const Problem& p, int b, int t) {
    int first = 0, stop = p.S, position = t + p.S - p.T;
    if (p.starts) {
        int low = 0, high = p.sequences - 1;  // the first sequence that ends after t
        while (low < high) {
            const int middle = (low + high) / 2;
            if (p.starts[middle + 1] <= t)
                low = middle + 1;
            else
                high = middle;
        }
        first = p.key_starts[low];
        stop = p.key_starts[low + 1];
        position = stop - p.starts[low + 1] + t;
    }
    if (p.left >= 0) first = max(first, min(position - p.left, stop));
    if (p.right >= 0) stop = max(first, min(stop, position + p.right + 1));
    if (p.key_lengths) {
        stop = min(stop, max(p.key_lengths[b], 0));
        first = min(first, stop);
    }
    return Range{first, stop, position};
}

// The first of rows 0 to T of which `after(range)` is true, where it is false before and true from there on; T if none.
template <class After>
__device__ __forceinline__ int first_row(const Problem& p, int b, After after) {
    int low = 0, high = p.T;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (after(visible(p, b, middle)))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}
