// y = silu(gate) up, and its gradients, element by element.
#include "logistic.cuh"
#include "packs.cuh"

extern "C" __global__ __launch_bounds__(256) void swiglu(const SCALAR* gate, const SCALAR* up, SCALAR* y, i64 count) {
    const i64 i = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * WIDTH;
    if (i >= count) return;
    float a[WIDTH], b[WIDTH];
    load(gate + i, a);
    load(up + i, b);
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) a[j] = a[j] * logistic(a[j]) * b[j];
    store(y + i, a);
}

extern "C" __global__ __launch_bounds__(256) void swiglu_backward(const SCALAR* g, const SCALAR* gate, const SCALAR* up,
                                                                  SCALAR* dgate, SCALAR* dup, i64 count) {
    const i64 i = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * WIDTH;
    if (i >= count) return;
    float gs[WIDTH], a[WIDTH], b[WIDTH];
    load(g + i, gs);
    load(gate + i, a);
    load(up + i, b);
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) {
        const float s = logistic(a[j]);
        b[j] = gs[j] * b[j] * s * (1 + a[j] * (1 - s));
        a[j] = gs[j] * a[j] * s;
    }
    store(dgate + i, b);
    store(dup + i, a);
}
