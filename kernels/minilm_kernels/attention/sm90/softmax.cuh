// What a thread does with its part of the scores between the two products: masks, and softmax as the keys pass by.
#pragma once
#include "sm90.cuh"

#define MINUS_INFINITY __int_as_float(0xff800000)
constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

// A thread has a part of two rows of the tile, 8 apart; the four lanes of a quad share them. In both products' results
// numbers 4 j and 4 j + 1 are of the first row, 4 j + 2 and 4 j + 3 of the second, in columns 8 j + lane % 4 * 2 and the
// next.
struct Softmax {
    float largest[2], sum[2];
    float scale;  // log2(e) times what scores are multiplied by: exp is then 2^x, one instruction

    __device__ __forceinline__ void start() {
        for (int row = 0; row < 2; ++row) largest[row] = MINUS_INFINITY, sum[row] = 0;
    }

    // Turns scores into weights exp(score - largest); what was summed before has to be multiplied by `correction`.
    __device__ __forceinline__ void add(float (&scores)[KEYS / 2], float (&correction)[2]) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            float most = largest[row];
#pragma unroll
            for (int i = 2 * row; i < KEYS / 2; i += 4) most = fmaxf(most, fmaxf(scores[i], scores[i + 1]));
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
            // While a row has seen no key: 0, because -infinity minus itself would be NaN.
            float shift = most == MINUS_INFINITY ? 0.0f : most * scale;
            correction[row] = exp2_approx(largest[row] * scale - shift);
            largest[row] = most;
            float total = 0;
#pragma unroll
            for (int i = 2 * row; i < KEYS / 2; i += 4) {
                scores[i] = exp2_approx(scores[i] * scale - shift);
                scores[i + 1] = exp2_approx(scores[i + 1] * scale - shift);
                total += scores[i] + scores[i + 1];
            }
            sum[row] = sum[row] * correction[row] + total;  // of this lane's columns: the quad adds up at the end
        }
    }
};

// The keys that a thread's two rows see.
struct Range {
    int first[2], stop[2];

    __device__ __forceinline__ void hide(float (&scores)[KEYS / 2], int block) const {
        int begin = block * KEYS + lane_id() % 4 * 2;
#pragma unroll
        for (int i = 0; i < KEYS / 2; ++i) {
            int column = i / 4 * 8 + i % 2, row = i / 2 % 2;
            if (column < first[row] - begin || column >= stop[row] - begin) scores[i] = MINUS_INFINITY;
        }
    }
};
