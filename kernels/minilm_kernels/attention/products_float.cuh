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

// sums += a b^T: rows from `a_row` on of one tile with the first N * 8 rows of another, four columns at a time.
template <int M, int N>
__device__ __forceinline__ void add_product_of_rows(Sums<M, N>& sums, const float* a, int a_row, const float* b) {
    using Four = Pack<float, 4>;
    const int at_a = place(a_row + row_of(0), 0), at_b[2] = {place(column_of(0, 0), 0), place(column_of(0, 1), 0)};
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
                const Four y = *reinterpret_cast<const Four*>(b + onward(at_b[j], k) + 8 * n * HEAD_SIZE);
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

// sums += left b: K * 16 rows of a tile, of which the columns from `column` on are taken. A number of the left factor is
// in one of the four lanes that share its row, and is handed to the others.
template <int M, int N, int K>
__device__ __forceinline__ void add_product(
    Sums<M, N>& sums, const Left<float, M, K>& left, const float* b, int column) {
    using Two = Pack<float, 2>;
    const int lane = lane_id(), at_b = place(0, lane % 4 / 2) + lane % 2 * 2 + column;
#pragma unroll
    for (int k = 0; k < 2 * K; ++k)
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float x[2 * M];
#pragma unroll
            for (int slot = 0; slot < 2 * M; ++slot)
                x[slot] = __shfl_sync(
                    ALL_LANES, left.sums.at[slot / 2][k][slot % 2 * 2 + i % 2], lane / 4 * 4 + i / 2);
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const int at = (at_b ^ (i * CHUNK)) + (8 * k + i) * HEAD_SIZE;  // row i's turn is i
                const Two y = *reinterpret_cast<const Two*>(b + onward(at, 2 * n));
#pragma unroll
                for (int slot = 0; slot < 2 * M; ++slot) {
                    sums.at[slot / 2][n][slot % 2 * 2] += x[slot] * y.at[0];
                    sums.at[slot / 2][n][slot % 2 * 2 + 1] += x[slot] * y.at[1];
                }
            }
        }
}
