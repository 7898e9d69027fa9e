// GELU of x + bias and its gradient, element by element; `columns` is the bias' length.
#include "packs.cuh"

constexpr float ROOT_HALF = 0.70710678118654752f, ROOT_2_OVER_PI = 0.79788456080286536f, CUBE = 0.044715f;
constexpr float DENSITY_AT_0 = 0.39894228040143268f;  // 1 / sqrt(2 pi)

__device__ __forceinline__ float gelu_of(float x, bool tanh_form) {
    if (tanh_form) return 0.5f * x * (1 + tanhf(ROOT_2_OVER_PI * (x + CUBE * x * x * x)));
    return 0.5f * x * (1 + erff(x * ROOT_HALF));
}

__device__ __forceinline__ float slope_of(float x, bool tanh_form) {
    if (tanh_form) {
        const float t = tanhf(ROOT_2_OVER_PI * (x + CUBE * x * x * x));
        return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * ROOT_2_OVER_PI * (1 + 3 * CUBE * x * x);
    }
    return 0.5f * (1 + erff(x * ROOT_HALF)) + x * DENSITY_AT_0 * expf(-0.5f * x * x);
}

__device__ __forceinline__ void load_sum(const SCALAR* x, const SCALAR* bias, i64 i, int columns, float (&sum)[WIDTH]) {
    load(x + i, sum);
    if (bias) {
        float b[WIDTH];
        load(bias + i % columns, b);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) sum[j] += b[j];
    }
}

extern "C" __global__ __launch_bounds__(256) void gelu(const SCALAR* x, const SCALAR* bias, SCALAR* y, int columns,
                                                       bool tanh_form, i64 count) {
    const i64 i = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * WIDTH;
    if (i >= count) return;
    float v[WIDTH];
    load_sum(x, bias, i, columns, v);
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) v[j] = gelu_of(v[j], tanh_form);
    store(y + i, v);
}

extern "C" __global__ __launch_bounds__(256) void gelu_backward(const SCALAR* g, const SCALAR* x, const SCALAR* bias,
                                                                SCALAR* dx, int columns, bool tanh_form, i64 count) {
    const i64 i = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * WIDTH;
    if (i >= count) return;
    float v[WIDTH], gs[WIDTH];
    load_sum(x, bias, i, columns, v);
    load(g + i, gs);
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) v[j] = gs[j] * slope_of(v[j], tanh_form);
    store(dx + i, v);
}
