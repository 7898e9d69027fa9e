// What backward.cu needs of each query, ready to be copied; and what it counts with, set to zero.
//
// Of queries that are not there or see no key, logsumexp is +inf and rowsum(g * out) 0: their weights are
// 2^(score - inf) = 0. The latter get their dq here, for maybe no key tile comes by.
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
        if (logsumexp == -INFINITE) {
            logsumexp = INFINITE;
            for (int d = 2 * lane; d < p.head_size; d += 2 * WARP) store_two(p.dq.at(b, h, t) + d, 0, 0);
        }
    }
    if (lane > 0) return;
    const i64 at = ((i64(b) * p.H + h) * p.padded + t) / SIXTEEN;
    Rows& rows = p.rows[at];
    const Range range = visible(p, b, min(t, p.T - 1));
    rows.logsumexp[t % SIXTEEN] = logsumexp;
    rows.product[t % SIXTEEN] = sum;
    rows.first[t % SIXTEEN] = range.first;
    rows.stop[t % SIXTEEN] = range.stop;
    rows.position[t % SIXTEEN] = range.position;
    if (t % SIXTEEN == 0) p.turns[at] = 0;
    if (t + h + b == 0) *p.tickets = 0;
}
