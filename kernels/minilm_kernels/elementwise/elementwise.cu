// Functions of one number and their gradients, element by element. The macro FUNCTION names one of those below.
#include "logistic.cuh"
#include "packs.cuh"

struct Erf {
    __device__ static float of(float x) { return erff(x); }
    __device__ static float gradient(float g, float x) { return g * (1.12837917f * expf(-x * x)); }
};

struct Exp {
    __device__ static float of(float x) { return expf(x); }
    __device__ static float gradient(float g, float y) { return g * y; }
};

struct Log {
    __device__ static float of(float x) { return logf(x); }
    __device__ static float gradient(float g, float x) { return g / x; }
};

struct Relu {
    __device__ static float of(float x) { return x < 0 ? 0 : x; }
    __device__ static float gradient(float g, float y) { return y > 0 ? g : 0; }
};

struct Sigmoid {
    __device__ static float of(float x) { return logistic(x); }
    __device__ static float gradient(float g, float y) { return g * y * (1 - y); }
};

struct Silu {
    __device__ static float of(float x) { return x * Sigmoid::of(x); }
    __device__ static float gradient(float g, float x) {
        const float share = Sigmoid::of(x);
        return g * share * (1 + x * (1 - share));
    }
};

struct Tanh {
    __device__ static float of(float x) { return tanhf(x); }
    __device__ static float gradient(float g, float y) { return g * (1 - y * y); }
};

extern "C" __global__ __launch_bounds__(256) void forward(const SCALAR* x, SCALAR* y, i64 count) {
    const i64 i = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * WIDTH;
    if (i >= count) return;
    float v[WIDTH];
    load(x + i, v);
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) v[j] = FUNCTION::of(v[j]);
    store(y + i, v);
}

// `kept` is x or y, whichever the function's gradient is computed from.
extern "C" __global__ __launch_bounds__(256) void backward(const SCALAR* g, const SCALAR* kept, SCALAR* dx, i64 count) {
    const i64 i = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * WIDTH;
    if (i >= count) return;
    float v[WIDTH], gs[WIDTH];
    load(kept + i, v);
    load(g + i, gs);
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) v[j] = FUNCTION::gradient(gs[j], v[j]);
    store(dx + i, v);
}
