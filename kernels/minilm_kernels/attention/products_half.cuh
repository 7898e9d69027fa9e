// Products of tiles of float16 or bfloat16 by tensor cores, summed in float32: mma.sync.m16n8k16, fed by ldmatrix.
#pragma once
#include "tiles.cuh"

__device__ __forceinline__ void mma(f16, float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    mma_m16n8k16_f16(sums, a, b0, b1);
}
__device__ __forceinline__ void mma(bf16, float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    mma_m16n8k16_bf16(sums, a, b0, b1);
}

// A left factor of M * 16 rows and K * 16 columns in registers. What a lane holds of a 16 x 16 block of it is what it
// holds of two 16 x 8 blocks of `Sums`, rounded: the weights go from one product into the next without shared memory.
template <class T, int M, int K>
struct Left {
    u32 at[M][K][4];

    __device__ __forceinline__ explicit Left(const Sums<M, 2 * K>& sums) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int k = 0; k < K; ++k)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float* pair = &sums.at[m][2 * k + i / 2][i % 2 * 2];
                    at[m][k][i] = two(T{}, pair[0], pair[1]);
                }
    }
};

template <class T, int M, int N>
__device__ __forceinline__ Left<T, M, N / 2> as_left(const Sums<M, N>& sums) {
    return Left<T, M, N / 2>(sums);
}

// sums += a b^T: rows from `a_row` on of one tile with rows of another from `b_row` on, along HEAD_SIZE. Of
// AHEAD steps at a time the compiler sees what it may read early: too many, and it spills.
//
//                         b: 8 rows (columns of sums) x 16, one ldmatrix for two n
//     a: 16 rows x 16     sums: 16 x 8
template <int AHEAD, class T, int M, int N, int ACROSS>
__device__ __forceinline__ void add_product_of_rows(
    Sums<M, N, ACROSS>& sums, const T* a, int a_row, const T* b, int b_row) {
    const int lane = lane_id();
    // ldmatrix takes the addresses of four 8 x 8 matrices from lanes 0-7, 8-15, 16-23 and 24-31. Of a: upper left, lower
    // left, upper right, lower right, as mma numbers them; of b: left and right of eight rows, then of the next eight.
    const int at_a = place(a_row + lane % 16, lane / 16), at_b = place(b_row + lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll AHEAD
    for (int k = 0; k < HEAD_SIZE / 16; ++k) {
        u32 x[M][4];
#pragma unroll
        for (int m = 0; m < M; ++m) ldmatrix_x4(x[m], a + onward(at_a, 2 * k) + 16 * m * HEAD_SIZE);
#pragma unroll
        for (int n = 0; n < N / 2; ++n) {
            u32 y[4];
            ldmatrix_x4(y, b + onward(at_b, 2 * k) + 16 * ACROSS * n * HEAD_SIZE);
#pragma unroll
            for (int m = 0; m < M; ++m) {
                mma(T{}, sums.at[m][2 * n], x[m], y[0], y[1]);
                mma(T{}, sums.at[m][2 * n + 1], x[m], y[2], y[3]);
            }
        }
    }
}

// sums += left b: K * 16 rows of a tile. ldmatrix.trans hands each lane what a row-wise read of b^T would.
template <class T, int M, int N, int K>
__device__ __forceinline__ void add_product(Sums<M, N>& sums, const Left<T, M, K>& left, const T* b) {
    const int at_b = place(lane_id() % 16, lane_id() / 16);
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
        for (int n = 0; n < N / 2; ++n) {
            u32 y[4];
            ldmatrix_x4_trans(y, b + onward(at_b, 2 * n) + 16 * k * HEAD_SIZE);
#pragma unroll
            for (int m = 0; m < M; ++m) {
                mma(T{}, sums.at[m][2 * n], left.at[m][k], y[0], y[1]);
                mma(T{}, sums.at[m][2 * n + 1], left.at[m][k], y[2], y[3]);
            }
        }
}

// sums += a b, along the LENGTH rows of tile b, its columns from `column` on. `a` is a tile of WIDTH columns, of which
// rows from `row` on are taken; or TRANSPOSED, columns.
template <int WIDTH, int LENGTH, bool TRANSPOSED, class T, int M, int N, int ACROSS>
__device__ __forceinline__ void add_product_of_tiles(
    Sums<M, N, ACROSS>& sums, const T* a, int row, const T* b, int column) {
    const int lane = lane_id(), at_b = place(lane % 16, column / CHUNK + lane / 16);
    const int at_a = TRANSPOSED ? place<WIDTH>(lane % 8 + lane / 16 * 8, row / CHUNK + lane / 8 % 2)
                                : place<WIDTH>(row + lane % 16, lane / 16);
#pragma unroll
    for (int k = 0; k < LENGTH / 16; ++k) {
        u32 x[M][4];
#pragma unroll
        for (int m = 0; m < M; ++m)
            if constexpr (TRANSPOSED)
                ldmatrix_x4_trans(x[m], a + onward<WIDTH>(at_a, 2 * m) + 16 * k * WIDTH);
            else
                ldmatrix_x4(x[m], a + onward<WIDTH>(at_a, 2 * k) + 16 * m * WIDTH);
#pragma unroll
        for (int n = 0; n < N / 2; ++n) {
            u32 y[4];
            ldmatrix_x4_trans(y, b + onward(at_b, 2 * ACROSS * n) + 16 * k * HEAD_SIZE);
#pragma unroll
            for (int m = 0; m < M; ++m) {
                mma(T{}, sums.at[m][2 * n], x[m], y[0], y[1]);
                mma(T{}, sums.at[m][2 * n + 1], x[m], y[2], y[3]);
            }
        }
    }
}
