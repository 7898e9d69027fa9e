// One chunk of one of many arrays: what a block takes of the table that array_table.py makes.
#pragma once
#include "common.cuh"

struct Chunk {
    int array;
    i64 first, count;
};

__device__ __forceinline__ Chunk chunk_of_block(const i64* sizes, const i32* owner, const i64* starts, int chunk_size) {
    const int array = owner[blockIdx.x];
    const i64 first = starts[blockIdx.x];
    return {array, first, min(i64(chunk_size), sizes[array] - first)};
}
