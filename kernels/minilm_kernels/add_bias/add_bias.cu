// A bias added to rows, in place: each thread to a pack of one of them, which begin row_length numbers after each other.
#include "packs.cuh"

extern "C" __global__ __launch_bounds__(256) void add_bias(SCALAR* x, const SCALAR* bias, int columns, i64 row_length,
                                                           int packs, i64 count) {
    const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const i64 row = i / packs;
    const int column = int(i - row * packs) * WIDTH, there = columns - column;
    SCALAR* at = x + row * row_length + column;
    bias += column;
    if (there < WIDTH) {  // the end of a row
        for (int j = 0; j < there; ++j) at[j] = from_float<SCALAR>(to_float(at[j]) + to_float(bias[j]));
        return;
    }
    float v[WIDTH], b[WIDTH];
    load(at, v);
    load(bias, b);
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) v[j] += b[j];
    store(at, v);
}
