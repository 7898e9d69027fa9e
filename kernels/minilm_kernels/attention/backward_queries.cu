// The gradient of attention for q:  dq = scale * dS k,  dS = P * (dropout(g v^T) - rowsum(g * out)),  P = exp(S - lse).
//
// Built like forward.cu: a block keeps BLOCK_M queries, with the same rows of g, in shared memory, goes along the keys,
// and keeps the sums of dq in registers. That S and g v^T are computed here and in backward_keys.cu, seven products
// instead of five, is the price of no sum that several blocks would add to: the same bits come out each time, and no
// float32 copy of dq goes through memory.
//
// Of the tiles of k and v STAGES are held: with two, the next is on its way while this one is worked on.
#include "products.cuh"
#include "scores.cuh"

constexpr int M = BLOCK_M / WARPS / 16, N = BLOCK_N / 8, D = HEAD_SIZE / 8;
constexpr int TILE = BLOCK_N * HEAD_SIZE;

extern "C" __global__ void __launch_bounds__(THREADS) attention_backward_queries(const Problem p) {
    DYNAMIC_SHARED(Scalar, q);
    Scalar* g = q + BLOCK_M * HEAD_SIZE;
    Scalar* stages = g + BLOCK_M * HEAD_SIZE;  // of k, then v
    __shared__ Range ranges[BLOCK_M];

    const int first = (gridDim.x - 1 - blockIdx.x) * BLOCK_M, h = blockIdx.y, b = blockIdx.z;
    const int warp_row = warp_id() * (16 * M);
    const Range top = visible(p, b, first), bottom = visible(p, b, min(first + BLOCK_M, p.T) - 1);
    for (int row = threadIdx.x; row < BLOCK_M; row += THREADS) ranges[row] = visible(p, b, min(first + row, p.T - 1));

    const int begin = top.first / BLOCK_N * BLOCK_N, end = bottom.stop;
    const Scalar *keys = own_chunk(p.k, b, h / p.group, begin), *values = own_chunk(p.v, b, h / p.group, begin);
    const auto load = [&](int key, int stage) {
        load_tile<BLOCK_N>(stages + 2 * stage * TILE, keys, p.k.row, p.S - key, p.head_size);
        load_tile<BLOCK_N>(stages + (2 * stage + 1) * TILE, values, p.v.row, p.S - key, p.head_size);
        cp_async_commit();
        keys += BLOCK_N * p.k.row;
        values += BLOCK_N * p.v.row;
    };
    load_tile<BLOCK_M>(q, own_chunk(p.q, b, h, first), p.q.row, p.T - first, p.head_size);
    load_tile<BLOCK_M>(g, own_chunk(p.g, b, h, first), p.g.row, p.T - first, p.head_size);
    if (begin < end) load(begin, 0);

    float logsumexp[2 * M], product[2 * M];  // of each of a lane's rows: in base 2, and rowsum(g * out)
    const float* rows = p.rows + (i64(b) * p.H + h) * p.padded + first + warp_row;
#pragma unroll
    for (int slot = 0; slot < 2 * M; ++slot) {
        logsumexp[slot] = rows[row_of(slot)];
        product[slot] = rows[i64(p.B) * p.H * p.padded + row_of(slot)];
    }

    const Modifier modifier(p, b, h);
    const float scale = exponent_scale(p);
    Sums<M, D> dq;
    clear(dq);
    int stage = 0;
    for (int key = begin; key < end; key += BLOCK_N) {
        cp_async_wait<0>();
        __syncthreads();  // this stage is here, and nobody reads the other any more
        const Scalar *k = stages + 2 * stage * TILE, *v = k + TILE;
        if (STAGES == 2 && key + BLOCK_N < end) load(key + BLOCK_N, stage ^= 1);

        Sums<M, N> weights, d_scores, bends;  // bends: the soft cap's derivatives, if there is one
        clear(weights);
        add_product_of_rows(weights, q, warp_row, k);
        if (CHANGED)
            each(weights, bends, [&](float& x, float& bend, int slot, int column) {
                const int row = warp_row + row_of(slot);
                x = modifier.score(p, x, first + row, ALIBI ? ranges[row].position : 0, key + column, bend);
            });
        if (key < bottom.first || key + BLOCK_N > top.stop)
            each(weights, [&](float& x, int slot, int column) {
                const Range range = ranges[warp_row + row_of(slot)];
                if ((key + column < range.first) | (key + column >= range.stop)) x = -INFINITE;
            });
        each(weights, [&](float& x, int slot, int) { x = power_of_two(x * scale - logsumexp[slot]); });

        clear(d_scores);
        add_product_of_rows(d_scores, g, warp_row, v);
        if (DROPOUT)
            drop<M, N>(p, b, h, first + warp_row, key, [&](int m, int n, int i, float factor) {
                d_scores.at[m][n][i] *= factor;
            });
        each(d_scores, weights, [&](float& x, float& weight, int slot, int) { x = weight * (x - product[slot]); });
        if (BIAS && p.d_bias)
            each(d_scores, [&](float& x, int slot, int column) {
                const int t = first + warp_row + row_of(slot), s = key + column;
                if (t < p.T && s < p.S) p.d_bias[((i64(b) * p.H + h) * p.T + t) * p.S + s] = x;
            });
        if (SOFT_CAP) each(d_scores, bends, [](float& x, float& bend, int, int) { x *= bend; });
        add_product(dq, as_left<Scalar>(d_scores), k, 0);
        if (STAGES == 1 && key + BLOCK_N < end) {
            __syncthreads();  // nobody reads it any more
            load(key + BLOCK_N, 0);
        }
    }
    store_rows(dq, p.dq.at(b, h, 0), p.dq.row, first + warp_row, p.T, 0, p.head_size, [&](int) { return p.scale; });
    cp_async_wait<0>();  // of a block without keys
}
