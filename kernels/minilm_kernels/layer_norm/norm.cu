// Layer norm (CENTERED 1) and RMS norm (CENTERED 0) of rows, of a sum if there is a residual, and their gradients.
//
// A block takes a row: its numbers are read from memory once and then found in the first cache. All sums are in float,
// in an order that the sizes alone decide.
//
// Macros beside packs.cuh's: RESULT, the type of y and of its gradient g; CENTERED.
#include "packs.cuh"

// y = (x - mean) rstd weight + bias. With a residual, x + residual is first written to `total`, and takes x's place.
extern "C" __global__ __launch_bounds__(256) void norm_forward(const SCALAR* x, const SCALAR* residual,
                                                               const SCALAR* weight, const SCALAR* bias, RESULT* y,
                                                               SCALAR* total, SCALAR* mean_out, SCALAR* rstd_out,
                                                               int columns, float eps) {
    __shared__ float scratch[8];
    const i64 start = i64(blockIdx.x) * columns;
    const int step = blockDim.x * WIDTH, first = threadIdx.x * WIDTH;
    const SCALAR* row = (residual ? total : x) + start;
    float v[WIDTH], w[WIDTH];

    float sum = 0;
    for (int i = first; i < columns; i += step) {
        load(x + start + i, v);
        if (residual) {
            load(residual + start + i, w);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) v[j] = to_float(from_float<SCALAR>(v[j] + w[j]));
            store(total + start + i, v);
        }
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) sum += CENTERED ? v[j] : v[j] * v[j];
    }
    sum = block_sum(sum, scratch) / columns;
    const float mean = CENTERED ? sum : 0;
    float variance = sum;
    if (CENTERED) {
        variance = 0;
        for (int i = first; i < columns; i += step) {
            load(row + i, v);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) variance += (v[j] - mean) * (v[j] - mean);
        }
        variance = block_sum(variance, scratch) / columns;
    }
    const float rstd = 1 / sqrtf(variance + eps);

    for (int i = first; i < columns; i += step) {
        load(row + i, v);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) v[j] = (v[j] - mean) * rstd;
        if (weight) {
            load(weight + i, w);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) v[j] *= w[j];
        }
        if (bias) {
            load(bias + i, w);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) v[j] += w[j];
        }
        store(y + start + i, v);
    }
    if (threadIdx.x == 0) {
        if (CENTERED) mean_out[blockIdx.x] = from_float<SCALAR>(mean);
        rstd_out[blockIdx.x] = from_float<SCALAR>(rstd);
    }
}

// dx of every row, plus g_total if there is one; and for each block the sums over its rows of g n and of g, which
// `add_strips` adds up. Rows go round: block b takes rows b, b + gridDim.x, ... Shared memory: a float a column
// for each of the two sums that is wanted, in the order in which threads use them, so that no banks conflict.
extern "C" __global__ __launch_bounds__(256, 3) void norm_backward(const RESULT* g, const SCALAR* g_total, const SCALAR* x,
                                                                const SCALAR* weight, const SCALAR* mean_in,
                                                                const SCALAR* rstd_in, SCALAR* dx,
                                                                float* weight_sums, float* bias_sums, int rows,
                                                                int columns) {
    __shared__ float scratch[8];
    DYNAMIC_SHARED(float, sums);
    const int step = blockDim.x * WIDTH, first = threadIdx.x * WIDTH;
    const int padded = (columns + step - 1) / step * step;
    float* dweight = sums + threadIdx.x;
    float* dbias = sums + (weight_sums ? padded : 0) + threadIdx.x;
    for (int i = 0; i < padded / int(blockDim.x); ++i) {
        if (weight_sums) dweight[i * blockDim.x] = 0;
        if (bias_sums) dbias[i * blockDim.x] = 0;
    }
    float gs[WIDTH], xs[WIDTH], ws[WIDTH];
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) ws[j] = 1;

    for (int row = blockIdx.x; row < rows; row += gridDim.x) {
        const i64 start = i64(row) * columns;
        const float mean = CENTERED ? to_float(mean_in[row]) : 0, rstd = to_float(rstd_in[row]);
        float sum = 0, dot = 0;
        for (int i = first, slot = 0; i < columns; i += step, slot += WIDTH) {
            load(g + start + i, gs);
            load(x + start + i, xs);
            if (weight) load(weight + i, ws);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) {
                const float normal = (xs[j] - mean) * rstd, scaled = gs[j] * ws[j];
                sum += scaled;
                dot += scaled * normal;
                if (weight_sums) dweight[(slot + j) * blockDim.x] += gs[j] * normal;
                if (bias_sums) dbias[(slot + j) * blockDim.x] += gs[j];
            }
        }
        if (!dx) continue;
        sum = CENTERED ? block_sum(sum, scratch) / columns : 0;
        dot = block_sum(dot, scratch) / columns;
        for (int i = first; i < columns; i += step) {
            load(g + start + i, gs);
            load(x + start + i, xs);
            if (weight) load(weight + i, ws);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) xs[j] = rstd * (gs[j] * ws[j] - sum - (xs[j] - mean) * rstd * dot);
            if (g_total) {
                load(g_total + start + i, gs);
#pragma unroll
                for (int j = 0; j < WIDTH; ++j) xs[j] += gs[j];
            }
            store(dx + start + i, xs);
        }
    }

    for (int i = first, slot = 0; i < columns; i += step, slot += WIDTH)
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) {
            const i64 to = i64(blockIdx.x) * columns + i + j;
            if (weight_sums) weight_sums[to] = dweight[(slot + j) * blockDim.x];
            if (bias_sums) bias_sums[to] = dbias[(slot + j) * blockDim.x];
        }
}
