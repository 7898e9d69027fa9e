// The sum over the rows of a matrix, one a column: of each strip of rows first, by as many blocks as keep the card busy.
#include "packs.cuh"

// Blocks of 32 x 8 threads take 32 packs of columns of a strip; each thread every eighth row, and their sums are added
// up in order. Rows begin row_length numbers after each other.
extern "C" __global__ __launch_bounds__(256) void sums_of_strips(const SCALAR* x, float* sums, int rows, int columns,
                                                                 i64 row_length, int strip) {
    __shared__ float partial[8][32 * WIDTH];
    const int column = (blockIdx.x * 32 + threadIdx.x) * WIDTH;
    const int there = columns - column;  // of the pack, or more
    const int begin = blockIdx.y * strip, end = min(begin + strip, rows);
    float sum[WIDTH] = {}, v[WIDTH];
    if (there >= WIDTH) {
#pragma unroll 4
        for (int row = begin + threadIdx.y; row < end; row += 8) {
            load(x + row * row_length + column, v);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) sum[j] += v[j];
        }
    } else if (there > 0) {  // the end of a row
        for (int row = begin + threadIdx.y; row < end; row += 8)
#pragma unroll
            for (int j = 0; j < WIDTH; ++j)
                if (j < there) sum[j] += to_float(x[row * row_length + column + j]);
    }
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) partial[threadIdx.y][j * 32 + threadIdx.x] = sum[j];
    __syncthreads();
    if (threadIdx.y != 0) return;
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) {
        for (int i = 1; i < 8; ++i) sum[j] += partial[i][j * 32 + threadIdx.x];
        if (j < there) sums[i64(blockIdx.y) * columns + column + j] = sum[j];
    }
}

// Blocks of 32 x 16 threads take 32 columns of what is left, a row a strip.
extern "C" __global__ __launch_bounds__(512) void add_strips(const float* x, SCALAR* out, int strips, int columns) {
    __shared__ float partial[16][32];
    const int column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0;
    if (column < columns) {
#pragma unroll 4
        for (int row = threadIdx.y; row < strips; row += 16) sum += x[i64(row) * columns + column];
    }
    partial[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < columns) {
        for (int i = 1; i < 16; ++i) sum += partial[i][threadIdx.x];
        out[column] = from_float<SCALAR>(sum);
    }
}
