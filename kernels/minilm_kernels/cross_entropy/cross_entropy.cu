// Cross-entropy of a row of logits, and its gradient, by one block: the row is read once, and again for the gradient.
#include "rows.cuh"

// `given` (or null) is a row's logsumexp where it is known; else it is computed. What is not wanted of losses, logsumexp
// and dlogits is null; dlogits may be the logits. Rows, of both, begin row_length numbers after each other. A target that names no class makes the row's results NaN: to raise an
// error the host would have to wait for the card.
extern "C" __global__ __launch_bounds__(512) void cross_entropy(const SCALAR* logits, const i64* targets,
                                                                const float* g, const float* given, float* losses,
                                                                float* logsumexp_out, SCALAR* dlogits, int columns, i64 row_length,
                                                                i64 ignore_index, float smoothing, bool packed) {
    __shared__ float scratch[16];
    const i64 start = i64(blockIdx.x) * row_length, target = targets[blockIdx.x];
    const bool counted = target != ignore_index, wrong = counted && (target < 0 || target >= columns);
    const SCALAR* row = logits + start;

    float logsumexp;
    if (given) {
        logsumexp = given[blockIdx.x];
    } else {
        RunningSum running;
        float sum = 0;
        for_each_pack(row, columns, packed, [&](auto& x, int) {
            running.add(x);
            if (smoothing != 0)
                for (float number : x) sum += number;
        });
        running.combine(scratch);
        logsumexp = logf(running.sum) + running.shift();
        if (smoothing != 0) sum = block_sum(sum, scratch);
        if (threadIdx.x == 0) {
            float loss = 0;
            if (wrong) loss = NAN;
            else if (counted) loss = logsumexp - (1 - smoothing) * to_float(row[target]);
            if (counted && smoothing != 0) loss -= smoothing * (sum / columns);
            if (losses) losses[blockIdx.x] = loss;
            if (logsumexp_out) logsumexp_out[blockIdx.x] = logsumexp;
        }
    }
    if (!dlogits) return;
    __syncthreads();  // the gradient may take the logits' place, of which the first thread reads the target's
    const float arriving = wrong ? NAN : g[blockIdx.x], spread = smoothing / columns;
    for_each_pack(row, columns, packed, [&](auto& x, int first) {
        constexpr int N = sizeof(x) / sizeof(float);
        float d[N];
#pragma unroll
        for (int j = 0; j < N; ++j) {
            const float hit = first + j == target ? 1 - smoothing : 0;
            d[j] = counted ? (exponential(x[j] - logsumexp) - hit - spread) * arriving : 0;
        }
        store_pack(dlogits + start, first, d);
    });
}
