// The logarithm of the softmax of a row by one block, and its gradient.
#include "rows.cuh"

extern "C" __global__ __launch_bounds__(256) void log_softmax(const SCALAR* x, SCALAR* y, int columns, bool packed) {
    __shared__ float scratch[8];
    const i64 start = i64(blockIdx.x) * columns;
    RunningSum running;
    for_each_pack(x + start, columns, packed, [&](auto& values, int) { running.add(values); });
    running.combine(scratch);
    const float shift = running.shift(), logarithm = logf(running.sum);
    for_each_pack(x + start, columns, packed, [&](auto& values, int first) {
        constexpr int N = sizeof(values) / sizeof(float);
#pragma unroll
        for (int j = 0; j < N; ++j) values[j] = (values[j] - shift) - logarithm;
        store_pack(y + start, first, values);
    });
}

// dx = g - exp(y) sum g
extern "C" __global__ __launch_bounds__(256) void log_softmax_backward(const SCALAR* g, const SCALAR* y, SCALAR* dx,
                                                                       int columns, bool packed) {
    __shared__ float scratch[8];
    const i64 start = i64(blockIdx.x) * columns;
    float total = 0;
    for_each_pack(g + start, columns, packed, [&](auto& values, int) {
        constexpr int N = sizeof(values) / sizeof(float);
#pragma unroll
        for (int j = 0; j < N; ++j) total += values[j];
    });
    total = block_sum(total, scratch);
    for_each_pack(y + start, columns, packed, [&](auto& values, int first) {
        constexpr int N = sizeof(values) / sizeof(float);
#pragma unroll
        for (int j = 0; j < N; ++j)
            values[j] = to_float(g[start + first + j]) - exponential(values[j]) * total;
        store_pack(dx + start, first, values);
    });
}
