// WIDTH neighbouring numbers of type SCALAR at a time, computed with in float: what kernels over rows are made of.
//
// WIDTH is a macro of the program: 16 bytes' worth where rows and addresses are multiples of them, else 1.
#pragma once
#include "common.cuh"

__device__ __forceinline__ void load(const SCALAR* from, float (&x)[WIDTH]) {
    const Pack<SCALAR, WIDTH> pack = *reinterpret_cast<const Pack<SCALAR, WIDTH>*>(from);
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) x[j] = to_float(pack.at[j]);
}

__device__ __forceinline__ void store(SCALAR* to, const float (&x)[WIDTH]) {
    Pack<SCALAR, WIDTH> pack;
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) pack.at[j] = from_float<SCALAR>(x[j]);
    *reinterpret_cast<Pack<SCALAR, WIDTH>*>(to) = pack;
}
