// A bias added to rows, in place.
#include "packs.cuh"

extern "C" __global__ __launch_bounds__(256) void add_bias(SCALAR* x, const SCALAR* bias, int columns, i64 count) {
    const i64 i = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * WIDTH;
    if (i >= count) return;
    float v[WIDTH], b[WIDTH];
    load(x + i, v);
    load(bias + i % columns, b);
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) v[j] += b[j];
    store(x + i, v);
}
