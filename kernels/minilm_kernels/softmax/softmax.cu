// Softmax of a row by one block, and its gradient.
#include "rows.cuh"

// `mask` (or null) has a byte for each number: where it is 0 the weight is 0. A row without any weight gives zeros.
extern "C" __global__ __launch_bounds__(256) void softmax(const SCALAR* x, const u8* mask, SCALAR* y, int columns,
                                                          bool packed) {
    __shared__ float scratch[8];
    const i64 start = i64(blockIdx.x) * columns;
    auto masked = [&](auto& values, int first) {
        constexpr int N = sizeof(values) / sizeof(float);
        if (mask)
#pragma unroll
            for (int j = 0; j < N; ++j) values[j] = mask[start + first + j] ? values[j] : -INFINITY;
    };
    RunningSum running;
    for_each_pack(x + start, columns, packed, [&](auto& values, int first) {
        masked(values, first);
        running.add(values);
    });
    running.combine(scratch);
    const float shift = running.shift(), scale = running.largest == -INFINITY ? 0 : 1 / running.sum;
    for_each_pack(x + start, columns, packed, [&](auto& values, int first) {
        constexpr int N = sizeof(values) / sizeof(float);
        masked(values, first);
#pragma unroll
        for (int j = 0; j < N; ++j) values[j] = exponential(values[j] - shift) * scale;
        store_pack(y + start, first, values);
    });
}

// dx = y (g - sum g y)
extern "C" __global__ __launch_bounds__(256) void softmax_backward(const SCALAR* g, const SCALAR* y, SCALAR* dx,
                                                                   int columns) {
    __shared__ float scratch[8];
    const i64 start = i64(blockIdx.x) * columns;
    float dot = 0;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) dot += to_float(g[start + i]) * to_float(y[start + i]);
    dot = block_sum(dot, scratch);
    for (int i = threadIdx.x; i < columns; i += blockDim.x)
        dx[start + i] = from_float<SCALAR>(to_float(y[start + i]) * (to_float(g[start + i]) - dot));
}
