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

// Chunks that change places with each other.
__device__ constexpr int turn(int width) { return width / CHUNK % 8 == 0 ? 8 : 4; }
constexpr int TURN = turn(HEAD_SIZE);

// Where in a tile of rows of WIDTH numbers the chunk lies, in numbers.
template <int WIDTH = HEAD_SIZE>
__device__ __forceinline__ int place(int row, int chunk) {
    return row * WIDTH + (chunk ^ (turn(WIDTH) == 8 ? row % 8 : row / 2 % 4)) * CHUNK;
}

// Where the chunk lies that is `steps` after the one at `start`, whose number has no bit in common with `steps`: one
// instruction, and eight addresses a row at most, the others being a constant away.
template <int WIDTH = HEAD_SIZE>
__device__ __forceinline__ int onward(int start, int steps) {
    return (start ^ (steps % turn(WIDTH) * CHUNK)) + steps / turn(WIDTH) * turn(WIDTH) * CHUNK;
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
//
// The columns are every ACROSS-th sixteen of a wider matrix.
template <int M, int N, int ACROSS = 1>
struct Sums {
    float at[M][N][4];
};

template <int M, int N, int ACROSS>
__device__ __forceinline__ void clear(Sums<M, N, ACROSS>& sums) {
#pragma unroll
    for (int i = 0; i < M * N * 4; ++i) sums.at[i / (N * 4)][i / 4 % N][i % 4] = 0;
}

// The row of a lane's numbers; `slot` counts its rows: 2 * M of them.
__device__ __forceinline__ int row_of(int slot) { return 8 * slot + lane_id() / 4; }

// The column of number j of two in the n-th 16 x 8 block, from the warp's first column on.
template <int ACROSS = 1>
__device__ __forceinline__ int column_of(int n, int j) {
    return n / 2 * 16 * ACROSS + n % 2 * 8 + 2 * (lane_id() % 4) + j;
}

// The part of a ROWS x COLUMNS matrix that a warp of the block has as its Sums. ACROSS warps lie side by side, the others
// below each other: with 32 rows to a warp, if there are so many, what is read of the right factor serves two blocks of
// 16. The warps' columns alternate, so that their chunks have numbers with no bit in common (`onward`). Of a matrix with
// fewer blocks than there are warps, some compute the same.
template <int ROWS, int COLUMNS>
struct Part {
    __device__ static constexpr int across() {
        int n = 32 * WARPS <= ROWS ? 1 : 32 * WARPS / ROWS < WARPS ? 32 * WARPS / ROWS : WARPS;
        while (COLUMNS % (16 * n)) n /= 2;
        return n;
    }
    static constexpr int ACROSS = across(), DOWN = WARPS / ACROSS < ROWS / 16 ? WARPS / ACROSS : ROWS / 16;
    static constexpr int M = ROWS / DOWN / 16, N = COLUMNS / ACROSS / 8;
    using Numbers = Sums<M, N, ACROSS>;

    __device__ __forceinline__ static int row() { return warp_id() / ACROSS % DOWN * (16 * M); }
    __device__ __forceinline__ static int column() { return warp_id() % ACROSS * 16; }
};

// f(number, slot of its row, its column) for all of a lane's numbers.
template <int M, int N, int ACROSS, class F>
__device__ __forceinline__ void each(Sums<M, N, ACROSS>& sums, F f) {
#pragma unroll
    for (int slot = 0; slot < 2 * M; ++slot)
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j) f(sums.at[slot / 2][n][slot % 2 * 2 + j], slot, column_of<ACROSS>(n, j));
}

// The same for the numbers of two: f(number, number, slot, column).
template <int M, int N, int ACROSS, class F>
__device__ __forceinline__ void each(Sums<M, N, ACROSS>& a, Sums<M, N, ACROSS>& b, F f) {
#pragma unroll
    for (int slot = 0; slot < 2 * M; ++slot)
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const int i = slot % 2 * 2 + j;
                f(a.at[slot / 2][n][i], b.at[slot / 2][n][i], slot, column_of<ACROSS>(n, j));
            }
}

// Two neighbours, rounded.
__device__ __forceinline__ u32 two(f16, float low, float high) { return f16x2_bits(low, high); }
__device__ __forceinline__ u32 two(bf16, float low, float high) { return bf16x2_bits(low, high); }
__device__ __forceinline__ Pack<float, 2> two(float, float low, float high) { return {{low, high}}; }

__device__ __forceinline__ void store_two(Scalar* to, float low, float high) {
    const auto numbers = two(Scalar{}, low, high);
    *reinterpret_cast<decltype(two(Scalar{}, low, high))*>(to) = numbers;
}

// Writes sums to a tile of WIDTH columns, from `row` and `column` on.
template <int WIDTH, int M, int N, int ACROSS>
__device__ __forceinline__ void store_tile(const Sums<M, N, ACROSS>& sums, Scalar* tile, int row, int column) {
    const int c = column + column_of(0, 0), start = place<WIDTH>(row + row_of(0), c / CHUNK) + c % CHUNK;
#pragma unroll
    for (int slot = 0; slot < 2 * M; ++slot)
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const float* pair = &sums.at[slot / 2][n][slot % 2 * 2];
            const int steps = (n / 2 * 16 * ACROSS + n % 2 * 8) / CHUNK;
            store_two(tile + onward<WIDTH>(start, steps) + 8 * slot * WIDTH, pair[0], pair[1]);
        }
}

// Writes sums * factor(slot) to rows of an array, from `row` and `column` on; what lies outside is left out.
template <int M, int N, int ACROSS, class Factor>
__device__ __forceinline__ void store_rows(
    const Sums<M, N, ACROSS>& sums, Scalar* rows, i64 stride, int row, int count, int column, int head_size,
    Factor factor) {
#pragma unroll
    for (int slot = 0; slot < 2 * M; ++slot) {
        const int r = row + row_of(slot);
        if (r >= count) continue;
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const int c = column + column_of<ACROSS>(n, 0);
            const float* pair = &sums.at[slot / 2][n][slot % 2 * 2];
            if (!NARROW || c < head_size)
                store_two(rows + r * stride + c, pair[0] * factor(slot), pair[1] * factor(slot));
        }
    }
}
