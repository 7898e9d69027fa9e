// What lies between the product q k^T and the weights: scale, soft cap, bias, ALiBi, masks and dropout.
//
// Scores are in base 2 here: exp(x) = 2^(x log2 e), and the processor has an instruction for powers of two. Where nothing
// but a scale above zero changes them, the products stay as they are, and scale and log2 e go into the argument of exp2,
// a multiplication and a subtraction in one instruction.
#pragma once
#include "philox.cuh"
#include "tiles.cuh"

constexpr bool CHANGED = SOFT_CAP || BIAS || ALIBI || ANY_SCALE;

// What a score is multiplied by in the argument of exp2.
__device__ __forceinline__ float exponent_scale(const Problem& p) { return CHANGED ? 1.0f : p.scale_log2; }

__device__ __forceinline__ float power_of_two(float x) {
    if constexpr (sizeof(Scalar) == 2)
        return exp2_approx(x);
    else
        return exp2f(x);
}

// One head's settings: q's head h of batch row b.
struct Modifier {
    const Scalar* bias;
    float slope;

    __device__ __forceinline__ Modifier(const Problem& p, int b, int h) : bias(nullptr), slope(0) {
        if (BIAS) bias = p.bias + b * p.bias_batch + h * p.bias_head;
        if (ALIBI) slope = p.alibi_slopes[b * p.H + h];
    }

    // The score, in base 2, of query t, standing at `position`, and key s; `bend` becomes the soft cap's derivative.
    __device__ __forceinline__ float score(
        const Problem& p, float product, int t, int position, int s, float& bend) const {
        float x = product * p.scale;
        if (SOFT_CAP) {
            const float part = tanhf(x / p.soft_cap);
            x = part * p.soft_cap;
            bend = 1 - part * part;
        }
        if (BIAS && t < p.T && s < p.S) x += to_float(bias[t * p.bias_query + s * p.bias_key]);
        if (ALIBI) x -= slope * float(position < s ? s - position : position - s);
        return x * LOG2_E;
    }
};

// The four random words of a counter, as ../dropout/reference.py has them, each made one bit: whether the weight is kept.
__device__ __forceinline__ u32 four_kept(const Problem& p, u64 counter) {
    const uint4 words = philox(counter, 0, p.seed_at != nullptr ? *p.seed_at : p.seed);
    return u32(words.x >= p.threshold) | u32(words.y >= p.threshold) << 1 | u32(words.z >= p.threshold) << 2 |
           u32(words.w >= p.threshold) << 3;
}

// The counter of query t's first four keys; the next fours follow.
__device__ __forceinline__ u64 drop_counter(const Problem& p, int b, int h, int t) {
    return ((u64(b) * p.H + h) * p.T + t) * ((p.S + 3) / 4);
}

// keep(m, n, i, factor) for the numbers at[m][n][i] of weights whose rows are queries from t on and whose columns keys
// from s on. Four keys, one Philox, lie in two neighbouring lanes, which share a row and the row eight below it: each lane
// draws for one of the two rows, and they tell each other.
template <int M, int N, int ACROSS = 1, class Keep>
__device__ __forceinline__ void drop(const Problem& p, int b, int h, int t, int s, Keep keep) {
    const int odd = lane_id() % 2;
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const u64 counter = drop_counter(p, b, h, t + row_of(2 * m + odd)) + (s + column_of<ACROSS>(n, 0)) / 4;
            u32 bits = four_kept(p, counter) << 4 * odd;
            bits |= __shfl_xor_sync(ALL_LANES, bits, 1);
#pragma unroll
            for (int i = 0; i < 4; ++i)
                keep(m, n, i, bits >> (i / 2 * 4 + 2 * odd + i % 2) & 1 ? p.keep : 0.0f);
        }
}
