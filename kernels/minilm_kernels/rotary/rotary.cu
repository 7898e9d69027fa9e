// Pairs of features turned by their position's angle; what is not turned is copied. x and y lie in memory as their
// strides (of batch, head and position, in elements) say; a row of D features is contiguous.
#include "packs.cuh"

// WIDTH numbers of a table, 16 bytes at a time.
__device__ __forceinline__ void load_table(const float* from, float (&x)[WIDTH]) {
    constexpr int N = WIDTH < 4 ? WIDTH : 4;
#pragma unroll
    for (int j = 0; j < WIDTH; j += N) {
        const Pack<float, N> pack = *reinterpret_cast<const Pack<float, N>*>(from + j);
#pragma unroll
        for (int k = 0; k < N; ++k) x[j + k] = pack.at[k];
    }
}

// A thread turns WIDTH pairs, or copies WIDTH features: `half` pairs and D - 2 half features of each row. `sign` is -1 to
// turn back. The tables have a batch stride of 0 where all rows of the batch share them.
extern "C" __global__ __launch_bounds__(256) void rotary(const SCALAR* x, const float* cos, const float* sin,
                                                         SCALAR* y, i64 x_batch, i64 x_head, i64 x_row, i64 y_batch,
                                                         i64 y_head, i64 y_row, i64 table_batch, int heads, int length,
                                                         int size, int half, bool interleaved, float sign,
                                                         i64 items) {
    const i64 item = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item >= items) return;
    const int per_row = (size - half) / WIDTH;
    const int i = int(item % per_row) * WIDTH;
    const i64 row = item / per_row;
    const i64 t = row % length, h = row / length % heads, b = row / length / heads;
    x += b * x_batch + h * x_head + t * x_row;
    y += b * y_batch + h * y_head + t * y_row;
    float first[WIDTH], second[WIDTH], c[WIDTH], s[WIDTH];
    if (i >= half) {  // features 2 half to D
        load(x + half + i, first);
        store(y + half + i, first);
        return;
    }
    load_table(cos + b * table_batch + t * half + i, c);
    load_table(sin + b * table_batch + t * half + i, s);
    if (interleaved) {
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) first[j] = to_float(x[2 * (i + j)]), second[j] = to_float(x[2 * (i + j) + 1]);
    } else {
        load(x + i, first);
        load(x + half + i, second);
    }
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) {
        const float a = first[j], d = second[j];
        first[j] = a * c[j] - sign * d * s[j];
        second[j] = d * c[j] + sign * a * s[j];
    }
    if (interleaved) {
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) {
            y[2 * (i + j)] = from_float<SCALAR>(first[j]);
            y[2 * (i + j) + 1] = from_float<SCALAR>(second[j]);
        }
    } else {
        store(y + i, first);
        store(y + half + i, second);
    }
}
