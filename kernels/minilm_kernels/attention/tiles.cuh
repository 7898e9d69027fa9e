// Tiles of q, k, v and g in shared memory.
//
// A tile is rows of HEAD_SIZE numbers. Its 16-byte chunks are swizzled: chunk c of row r lies at c ^ (r % 8), so that the
// eight rows of one 8 x 8 matrix, which ldmatrix reads at the same c, come from eight different groups of four banks:
//
//     row 0:  0 1 2 3 4 5 6 7        a row of 128 bytes is all 32 banks; without the swizzle the
//     row 1:  1 0 3 2 5 4 7 6        chunks of a column would all lie in the same four
//     row 2:  2 3 0 1 6 7 4 5
//     ...
//
// Rows whose bytes are an odd multiple of 64 begin at alternate halves of the banks already: there the chunks of two rows
// at a time are turned, within four.
#pragma once
#include "problem.cuh"

constexpr int CHUNK = 16 / sizeof(Scalar);  // numbers
constexpr int CHUNKS = HEAD_SIZE / CHUNK;   // to a row

constexpr int TURN = CHUNKS % 8 == 0 ? 8 : 4;  // chunks that change places with each other

// Where in a tile the chunk lies, in numbers.
__device__ __forceinline__ int place(int row, int chunk) {
    return row * HEAD_SIZE + (chunk ^ (TURN == 8 ? row % 8 : row / 2 % 4)) * CHUNK;
}

// Where the chunk lies that is `steps` after the one at `start`, whose number has no bit in common with `steps`: one
// instruction, and TURN addresses a row at most, the others being a constant away.
__device__ __forceinline__ int onward(int start, int steps) {
    return (start ^ (steps % TURN * CHUNK)) + steps / TURN * TURN * CHUNK;
}

// Threads lie TURN to a row of a tile that they copy. This is the address of a thread's first chunk, of the rows from t on.
__device__ __forceinline__ const Scalar* own_chunk(const Heads& x, int b, int h, int t) {
    return x.at(b, h, t) + threadIdx.x / TURN * x.row + threadIdx.x % TURN * CHUNK;
}

// Starts to copy ROWS rows, `stride` numbers apart, into a tile, each thread what is a multiple of them from its own first
// chunk. Zeros stand for rows from `count` on, and for columns that the heads don't have: they take part in the products
// like all others.
template <int ROWS>
__device__ __forceinline__ void load_tile(Scalar* tile, const Scalar* own, i64 stride, int count, int head_size) {
    constexpr int STEP = THREADS / TURN;
    static_assert(ROWS % STEP == 0 && STEP % 8 == 0, "every thread copies as many chunks");
    const int row = threadIdx.x / TURN, column = threadIdx.x % TURN * CHUNK;
    Scalar* to = tile + place(row, threadIdx.x % TURN);
#pragma unroll
    for (int r = 0; r < ROWS; r += STEP)
#pragma unroll
        for (int c = 0; c < HEAD_SIZE; c += TURN * CHUNK) {
            const bool there = row + r < count && (!NARROW || column + c < head_size);
            cp_async_16(to + r * HEAD_SIZE + c, own + r * stride + c, there ? 16 : 0);
        }
}

// A matrix of M * 16 rows and N * 8 columns in the registers of a warp, as mma.sync leaves it. Of each 16 x 8 block a
// lane holds four numbers, two in row lane / 4 and two in the row eight below:
//
//     row 0:  lane 0 0 1 1 2 2 3 3        at[m][n][0], at[m][n][1]
//     row 1:  lane 4 4 5 5 6 6 7 7
//     ...
//     row 8:  lane 0 0 1 1 2 2 3 3        at[m][n][2], at[m][n][3]
template <int M, int N>
struct Sums {
    float at[M][N][4];
};

template <int M, int N>
__device__ __forceinline__ void clear(Sums<M, N>& sums) {
#pragma unroll
    for (int i = 0; i < M * N * 4; ++i) sums.at[i / (N * 4)][i / 4 % N][i % 4] = 0;
}

// The row of a lane's numbers; `slot` counts its rows: 2 * M of them.
__device__ __forceinline__ int row_of(int slot) { return 8 * slot + lane_id() / 4; }
__device__ __forceinline__ int column_of(int n, int j) { return 8 * n + 2 * (lane_id() % 4) + j; }

// f(number, slot of its row, its column) for all of a lane's numbers.
template <int M, int N, class F>
__device__ __forceinline__ void each(Sums<M, N>& sums, F f) {
#pragma unroll
    for (int slot = 0; slot < 2 * M; ++slot)
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j) f(sums.at[slot / 2][n][slot % 2 * 2 + j], slot, column_of(n, j));
}

// The same for the numbers of two: f(number, number, slot, column).
template <int M, int N, class F>
__device__ __forceinline__ void each(Sums<M, N>& a, Sums<M, N>& b, F f) {
#pragma unroll
    for (int slot = 0; slot < 2 * M; ++slot)
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const int i = slot % 2 * 2 + j;
                f(a.at[slot / 2][n][i], b.at[slot / 2][n][i], slot, column_of(n, j));
            }
}

// Writes sums * factor(slot) to rows of an array, from `row` and column `column` on; what lies outside is left out.
template <int M, int N, class Factor>
__device__ __forceinline__ void store_rows(
    const Sums<M, N>& sums, Scalar* rows, i64 stride, int row, int count, int column, int head_size, Factor factor) {
#pragma unroll
    for (int slot = 0; slot < 2 * M; ++slot) {
        const int r = row + row_of(slot);
        if (r >= count) continue;
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const int c = column + column_of(n, 0);
            const float* pair = &sums.at[slot / 2][n][slot % 2 * 2];
            if (!NARROW || c < head_size)
                *reinterpret_cast<Pack<Scalar, 2>*>(rows + r * stride + c) = Pack<Scalar, 2>{
                    {from_float<Scalar>(pair[0] * factor(slot)), from_float<Scalar>(pair[1] * factor(slot))}};
        }
    }
}
