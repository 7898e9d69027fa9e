// The gradients of attention for k and v:  dv = dropout(P)^T g,  dk = scale * dS^T q;  dS as in backward_queries.cu.
//
// A block keeps BLOCK_N keys of one key head, with their values, in shared memory and goes along the queries of all heads
// that share them, BLOCK_M at a time. It computes everything transposed:
//
//              q, g: BLOCK_M queries            a warp:  P^T = 2^(k q^T - lse)      16 M keys x BLOCK_M, registers
//     k, v     [ tile | tile | ...                       dS^T = P^T * (v g^T - ...)
//     BLOCK_N                                            dv += P^T g,  dk += dS^T q
//
// so that the rows of P^T and dS^T, left factors of the second products, are already where those want them: neither is
// written to shared memory. Of wide heads a block sums only a D_SPLIT-th of the columns, for want of registers.
#include "products.cuh"
#include "scores.cuh"

constexpr int M = BLOCK_N / WARPS / 16, N = BLOCK_M / 8, D = HEAD_SIZE / D_SPLIT / 8;
constexpr int TILE = BLOCK_M * HEAD_SIZE;

struct alignas(16) Rows {  // what backward_rows.cu left of each query of a tile
    float logsumexp[BLOCK_M], product[BLOCK_M];
};

extern "C" __global__ void __launch_bounds__(THREADS) attention_backward_keys(const Problem p) {
    DYNAMIC_SHARED(Scalar, k);
    Scalar* v = k + BLOCK_N * HEAD_SIZE;
    Scalar* stages = v + BLOCK_N * HEAD_SIZE;  // of q, then g
    __shared__ Rows rows[STAGES];
    __shared__ Range ranges[BLOCK_M];

    const int first = blockIdx.x / D_SPLIT * BLOCK_N, column = blockIdx.x % D_SPLIT * (HEAD_SIZE / D_SPLIT);
    const int key_head = blockIdx.y, b = blockIdx.z, warp_row = warp_id() * (16 * M);
    // The queries that see any of the keys, in whole tiles; the same for all heads.
    const int begin = first_row(p, b, [&](Range r) { return r.stop > first; }) / BLOCK_M * BLOCK_M;
    const int end = first_row(p, b, [&](Range r) { return r.first >= first + BLOCK_N; });
    const int stop_head = begin < end ? (key_head + 1) * p.group : 0;

    const auto load = [&](int h, int t, int stage) {
        load_tile<BLOCK_M>(stages + 2 * stage * TILE, own_chunk(p.q, b, h, t), p.q.row, p.T - t, p.head_size);
        load_tile<BLOCK_M>(stages + (2 * stage + 1) * TILE, own_chunk(p.g, b, h, t), p.g.row, p.T - t, p.head_size);
        for (int i = threadIdx.x; i < BLOCK_M / 2; i += THREADS) {  // four numbers each, of two rows of BLOCK_M
            const int which = i / (BLOCK_M / 4), at = i % (BLOCK_M / 4) * 4;
            const float* from = p.rows + (i64(which) * p.B * p.H + i64(b) * p.H + h) * p.padded + t + at;
            cp_async_16((which ? rows[stage].product : rows[stage].logsumexp) + at, from, 16);
        }
        cp_async_commit();
    };
    load_tile<BLOCK_N>(k, own_chunk(p.k, b, key_head, first), p.k.row, p.S - first, p.head_size);
    load_tile<BLOCK_N>(v, own_chunk(p.v, b, key_head, first), p.v.row, p.S - first, p.head_size);
    int h = key_head * p.group, t = begin, stage = 0;
    if (h < stop_head) load(h, t, 0);

    const float scale = exponent_scale(p);
    Sums<M, D> dk, dv;
    clear(dk);
    clear(dv);
    while (h < stop_head) {
        const int next_t = t + BLOCK_M < end ? t + BLOCK_M : begin, next_h = t + BLOCK_M < end ? h : h + 1;
        cp_async_wait<0>();
        __syncthreads();  // this stage is here, and nobody reads the other any more
        const Scalar *q = stages + 2 * stage * TILE, *g = q + TILE;
        const float *logsumexp = rows[stage].logsumexp, *product = rows[stage].product;
        if (STAGES == 2 && next_h < stop_head) load(next_h, next_t, stage ^= 1);

        const Range top = visible(p, b, t), bottom = visible(p, b, min(t + BLOCK_M, p.T) - 1);
        const bool whole = first >= bottom.first && first + BLOCK_N <= top.stop;
        if (!whole || ALIBI) {
            for (int i = threadIdx.x; i < BLOCK_M; i += THREADS) ranges[i] = visible(p, b, min(t + i, p.T - 1));
            __syncthreads();
        }

        Sums<M, N> weights, d_scores, bends;  // bends: the soft cap's derivatives, if there is one
        clear(weights);
        add_product_of_rows(weights, k, warp_row, q);
        if (CHANGED) {
            const Modifier modifier(p, b, h);
            each(weights, bends, [&](float& x, float& bend, int slot, int i) {
                const int s = first + warp_row + row_of(slot);
                x = modifier.score(p, x, t + i, ALIBI ? ranges[i].position : 0, s, bend);
            });
        }
        if (!whole)
            each(weights, [&](float& x, int slot, int i) {
                const int s = first + warp_row + row_of(slot);
                if ((s < ranges[i].first) | (s >= ranges[i].stop)) x = -INFINITE;
            });
        each(weights, [&](float& x, int, int i) { x = power_of_two(x * scale - logsumexp[i]); });

        clear(d_scores);
        add_product_of_rows(d_scores, v, warp_row, g);
        if (DROPOUT) {
            Sums<M, N> kept;
            drop_by_key<M, N>(p, b, h, t, first + warp_row, [&](int m, int n, int i, float factor) {
                d_scores.at[m][n][i] *= factor;
                kept.at[m][n][i] = weights.at[m][n][i] * factor;
            });
            add_product(dv, as_left<Scalar>(kept), g, column);
        } else {
            add_product(dv, as_left<Scalar>(weights), g, column);
        }
        each(d_scores, weights, [&](float& x, float& weight, int, int i) { x = weight * (x - product[i]); });
        if (SOFT_CAP) each(d_scores, bends, [](float& x, float& bend, int, int) { x *= bend; });
        add_product(dk, as_left<Scalar>(d_scores), q, column);
        h = next_h, t = next_t;
        if (STAGES == 1 && h < stop_head) {
            __syncthreads();  // nobody reads it any more
            load(h, t, 0);
        }
    }
    const int row = first + warp_row;
    store_rows(dk, p.dk.at(b, key_head, 0), p.dk.row, row, p.S, column, p.head_size, [&](int) { return p.scale; });
    store_rows(dv, p.dv.at(b, key_head, 0), p.dv.row, row, p.S, column, p.head_size, [&](int) { return 1.0f; });
    cp_async_wait<0>();  // of a block without queries
}
