// The sum over the rows of a float matrix, one a column: what is left to do where each block made sums of its own.
#include "common.cuh"

// Blocks of 32 x 8 threads take 32 columns; each thread every eighth row, and their sums are added up in order.
extern "C" __global__ __launch_bounds__(256) void column_sums(const float* x, SCALAR* out, int rows, int columns) {
    __shared__ float partial[8][32];
    const int column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0;
    if (column < columns)
        for (int row = threadIdx.y; row < rows; row += 8) sum += x[i64(row) * columns + column];
    partial[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < columns) {
        for (int i = 1; i < 8; ++i) sum += partial[i][threadIdx.x];
        out[column] = from_float<SCALAR>(sum);
    }
}
