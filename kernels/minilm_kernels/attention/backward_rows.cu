// What both backward kernels need of each query: its logsumexp, in base 2, and rowsum(g * out).
//
// Laid out (2, B, H, padded) with the length padded to whole tiles: +inf and 0 stand for rows that are not there and for
// rows that see no key, and make their weights 2^(score - inf) = 0.
#include "scores.cuh"

// A warp takes a row at a time.
extern "C" __global__ void __launch_bounds__(THREADS) attention_backward_rows(const Problem p) {
    const int t = blockIdx.x * WARPS + warp_id(), h = blockIdx.y, b = blockIdx.z, lane = lane_id();
    if (t >= p.padded) return;
    float sum = 0, logsumexp = INFINITE;
    if (t < p.T) {
        using Two = Pack<Scalar, 2>;
        const Scalar *g = p.g.at(b, h, t), *out = p.out.at(b, h, t);
        for (int d = 2 * lane; d < p.head_size; d += 2 * WARP) {
            const Two x = *reinterpret_cast<const Two*>(g + d), y = *reinterpret_cast<const Two*>(out + d);
            sum += to_float(x.at[0]) * to_float(y.at[0]) + to_float(x.at[1]) * to_float(y.at[1]);
        }
        sum = warp_sum(sum);
        logsumexp = p.logsumexp[(i64(b) * p.H + h) * p.T + t] * LOG2_E;
        if (logsumexp == -INFINITE) logsumexp = INFINITE;
    }
    if (lane == 0) {
        float* row = p.rows + (i64(b) * p.H + h) * p.padded + t;
        row[0] = logsumexp;
        row[i64(p.B) * p.H * p.padded] = sum;
    }
}
