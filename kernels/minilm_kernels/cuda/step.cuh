// What the kernels of optimisers share: the numbers of a step, a struct Scalars of each, are computed in double precision
// and rounded once. They come from the host by value, or, where `given` is not null, lie on the card: a launch that was
// recorded in a graph is replayed with other ones.
#pragma once
#include "array_table.cuh"

// Whether a step is to be left out because its gradients are not finite, which then only the card knows.
template <class Scalars>
__device__ __forceinline__ bool is_left_out(const Scalars* given) {
    return given && isnan(given->grad_scale);
}
