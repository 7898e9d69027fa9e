// Many arrays in one launch: a block takes a chunk of one array, and the same chunk of its neighbours in the other columns
// of the table that array_table.py makes.
#pragma once
#include "common.cuh"

struct Chunk {
    int array;
    i64 first, count;
};

__device__ __forceinline__ Chunk chunk_of_block(const i64* sizes, const i32* owner, const i32* first_chunk,
                                                int chunk_size) {
    const int array = owner[blockIdx.x];
    const i64 first = i64(int(blockIdx.x) - first_chunk[array]) * chunk_size;
    return {array, first, min(i64(chunk_size), sizes[array] - first)};
}

// f(x) for N places from i on, as for_each_place has it.
template <int N, int COLUMNS, u32 WRITTEN, class F>
__device__ __forceinline__ void for_places(SCALAR* const (&columns)[COLUMNS], int i, F f) {
    Pack<SCALAR, N> packs[COLUMNS];
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) packs[c] = *reinterpret_cast<const Pack<SCALAR, N>*>(columns[c] + i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
        float x[COLUMNS];
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) x[c] = to_float(packs[c].at[j]);
        f(x);
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c)
            if (WRITTEN >> c & 1) packs[c].at[j] = from_float<SCALAR>(x[c]);
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c)
        if (WRITTEN >> c & 1) *reinterpret_cast<Pack<SCALAR, N>*>(columns[c] + i) = packs[c];
}

// Calls f(x) for each place of the chunk, the block's threads in turn, x being the numbers there in the first COLUMNS
// columns. What f makes of them is stored where WRITTEN has the column's bit.
template <int COLUMNS, u32 WRITTEN, class F>
__device__ __forceinline__ void for_each_place(const u64* addresses, int arrays, Chunk chunk, F f) {
    constexpr int PACK = PACKED ? 16 / sizeof(SCALAR) : 1;
    SCALAR* columns[COLUMNS];
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c)
        columns[c] = reinterpret_cast<SCALAR*>(addresses[c * arrays + chunk.array]) + chunk.first;
    const int packs = int(chunk.count / PACK);
    for (int i = threadIdx.x; i < packs; i += blockDim.x) for_places<PACK, COLUMNS, WRITTEN>(columns, i * PACK, f);
    if constexpr (PACK > 1)
        for (int i = packs * PACK + threadIdx.x; i < chunk.count; i += blockDim.x)
            for_places<1, COLUMNS, WRITTEN>(columns, i, f);
}
