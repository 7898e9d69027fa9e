// Products of tiles of float32 by the ordinary units, exact to float32: the interface and the layouts of
// products_half.cuh. (Tensor cores round float32 to 11 bits; three products of split numbers come near, and round their
// sums toward zero.)
#pragma once
#include "products_half.cuh"

template <int M, int K>
struct Left<float, M, K> {
    Sums<M, 2 * K> sums;

    __device__ __forceinline__ explicit Left(const Sums<M, 2 * K>& sums) : sums(sums) {}
};

// sums += a b^T: rows from `a_row` on of one tile with rows of another from `b_row` on, four columns at a time.
template <int AHEAD, int M, int N, int ACROSS>
__device__ __forceinline__ void add_product_of_rows(
    Sums<M, N, ACROSS>& sums, const float* a, int a_row, const float* b, int b_row) {
    using Four = Pack<float, 4>;
    const int at_a = place(a_row + row_of(0), 0);
    const int at_b[2] = {place(b_row + column_of(0, 0), 0), place(b_row + column_of(0, 1), 0)};
#pragma unroll 1
    for (int k = 0; k < CHUNKS; ++k) {
        Four x[2 * M];
#pragma unroll
        for (int slot = 0; slot < 2 * M; ++slot)
            x[slot] = *reinterpret_cast<const Four*>(a + onward(at_a, k) + 8 * slot * HEAD_SIZE);
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const int below = n / 2 * 16 * ACROSS + n % 2 * 8;
                const Four y = *reinterpret_cast<const Four*>(b + onward(at_b[j], k) + below * HEAD_SIZE);
#pragma unroll
                for (int slot = 0; slot < 2 * M; ++slot) {
                    float four = x[slot].at[0] * y.at[0];  // a sum of its own: fewer roundings of a large one
#pragma unroll
                    for (int i = 1; i < 4; ++i) four += x[slot].at[i] * y.at[i];
                    sums.at[slot / 2][n][slot % 2 * 2 + j] += four;
                }
            }
    }
}

// sums += x y: a column of the lane's rows of a left factor, and a row of a tile whose chunks lie as in row `turned`.
template <int M, int N, int ACROSS>
__device__ __forceinline__ void add_outer_product(
    Sums<M, N, ACROSS>& sums, const float (&x)[2 * M], const float* row, int start, int turned) {
    using Two = Pack<float, 2>;
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const int steps = n / 2 * 4 * ACROSS + n % 2 * 2;
        const Two y = *reinterpret_cast<const Two*>(row + onward(start ^ (turned * CHUNK), steps));
#pragma unroll
        for (int slot = 0; slot < 2 * M; ++slot) {
            sums.at[slot / 2][n][slot % 2 * 2] += x[slot] * y.at[0];
            sums.at[slot / 2][n][slot % 2 * 2 + 1] += x[slot] * y.at[1];
        }
    }
}

// sums += left b: K * 16 rows of a tile. A number of the left factor is in one of the four lanes that share its row, and
// is handed to the others.
template <int M, int N, int K>
__device__ __forceinline__ void add_product(Sums<M, N>& sums, const Left<float, M, K>& left, const float* b) {
    const int lane = lane_id(), start = place(0, lane % 4 / 2) + lane % 2 * 2;
#pragma unroll
    for (int k = 0; k < 2 * K; ++k)
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float x[2 * M];
#pragma unroll
            for (int slot = 0; slot < 2 * M; ++slot)
                x[slot] = __shfl_sync(
                    ALL_LANES, left.sums.at[slot / 2][k][slot % 2 * 2 + i % 2], lane / 4 * 4 + i / 2);
            add_outer_product(sums, x, b + (8 * k + i) * HEAD_SIZE, start, i);
        }
}

// sums += a b, along the LENGTH rows of tile b, its columns from `column` on. `a` is a tile of WIDTH columns, of which
// rows from `row` on are taken; or TRANSPOSED, columns.
template <int WIDTH, int LENGTH, bool TRANSPOSED, int M, int N, int ACROSS>
__device__ __forceinline__ void add_product_of_tiles(
    Sums<M, N, ACROSS>& sums, const float* a, int row, const float* b, int column) {
    const int lane = lane_id(), start = place(0, column / CHUNK + lane % 4 / 2) + lane % 2 * 2;
#pragma unroll 1
    for (int k = 0; k < LENGTH; k += 8)
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float x[2 * M];
#pragma unroll
            for (int slot = 0; slot < 2 * M; ++slot) {
                const int r = TRANSPOSED ? k + i : row + row_of(slot), c = TRANSPOSED ? row + row_of(slot) : k + i;
                x[slot] = a[place<WIDTH>(r, c / CHUNK) + c % CHUNK];
            }
            add_outer_product(sums, x, b + (k + i) * HEAD_SIZE, start, i);
        }
}
