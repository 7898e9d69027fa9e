// WIDTH neighbouring numbers at a time, computed with in float: what kernels over rows are made of.
//
// WIDTH is a macro of the program: 16 bytes' worth of SCALAR where rows and addresses are multiples of them, else 1.
#pragma once
#include "common.cuh"

template <class T>
__device__ __forceinline__ void load(const T* from, float (&x)[WIDTH]) {
    const Pack<T, WIDTH> pack = *reinterpret_cast<const Pack<T, WIDTH>*>(from);
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) x[j] = to_float(pack.at[j]);
}

template <class T>
__device__ __forceinline__ void store(T* to, const float (&x)[WIDTH]) {
    Pack<T, WIDTH> pack;
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) pack.at[j] = from_float<T>(x[j]);
    *reinterpret_cast<Pack<T, WIDTH>*>(to) = pack;
}
