// The block formats of block_formats.py, of which a lane takes a quarter of a block. FORMAT is 80 for Q8_0, 40 for Q4_0 and
// 41 for Q4_1.
#pragma once
#include "common.cuh"

constexpr int BLOCK = 32, BYTES = FORMAT == 80 ? 34 : FORMAT == 40 ? 18 : 20, HEAD = FORMAT == 41 ? 4 : 2;
constexpr int PART = 8, LANES = BLOCK / PART;  // numbers that a lane takes, and lanes that a block takes

// Where number j of a lane's part stands in the block: 8 in a row, or, of nibbles, four in each half.
__device__ __forceinline__ int place(int part, int j) {
    return FORMAT == 80 ? PART * part + j : 4 * part + j % 4 + 16 * (j / 4);
}
