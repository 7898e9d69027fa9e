// The gradients of attention, from P = exp(S - lse), the weights, computed again:
//
//     dv = dropout(P)^T g      dS = P * (dropout(g v^T) - rowsum(g * out))      dk = scale * dS^T q      dq = scale * dS k
//
// A block keeps BLOCK_N keys of one key head, with their values, in shared memory and goes along the queries of all heads
// that share them, BLOCK_M at a time. All warps work on each of the five products, on a part each:
//
//                          k, v: BLOCK_N
//     q, g: BLOCK_M      [   S, then P   ]     P and dS go through shared memory, to where the other products take them:
//     [ tile             [  g v^T -> dS  ]     dv += P^T g and dk += dS^T q stay in registers for all queries, and
//     [ tile                                   dq of the tile is what earlier blocks left of it in p.dq_sums, + dS k.
//     [ ...
//
// Several blocks add to a query tile's dq, one for each key tile that it sees, and floating-point sums depend on their
// order. So it is fixed: ascending keys, and p.turns says of each tile how many have added. A block waits for its turn.
// It can't wait for ever: which keys it works on is told by a ticket, drawn when it begins, and it waits only for blocks
// with earlier tickets (the same queries, lower keys), which have begun and, by induction, end. All blocks go along the
// queries from the last to the first, which with causal masks and windows they reach without waiting.
#include "products.cuh"
#include "scores.cuh"

using Scores = Part<BLOCK_M, BLOCK_N>;
using Keys = Part<BLOCK_N, HEAD_SIZE>;
using Queries = Part<BLOCK_M, HEAD_SIZE>;
constexpr int TILE = BLOCK_M * HEAD_SIZE;
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ < 900
constexpr int AHEAD = 2;  // of add_product_of_rows: here more would spill
#else
constexpr int AHEAD = HEAD_SIZE / 16;
#endif
static_assert(Queries::ACROSS * Queries::DOWN == WARPS && BLOCK_M % SIXTEEN == 0, "dq_sums is as large as dq");
static_assert(sizeof(Rows) * BLOCK_M / SIXTEEN / 16 <= THREADS, "a thread copies one chunk of a tile's Rows");

extern "C" __global__ void __launch_bounds__(THREADS) attention_backward(const Problem p) {
    DYNAMIC_SHARED(Scalar, k);
    Scalar* v = k + BLOCK_N * HEAD_SIZE;
    Scalar* kept_tile = v + BLOCK_N * HEAD_SIZE;  // dropout(P)
    Scalar* d_scores_tile = kept_tile + BLOCK_M * BLOCK_N;
    Scalar* stages = d_scores_tile + BLOCK_M * BLOCK_N;  // of q, then g
    Rows* rows = reinterpret_cast<Rows*>(stages + 2 * STAGES * TILE);

    // Tickets count through the key heads that work beside each other, then through the keys, then the next such heads.
    if (threadIdx.x == 0) *reinterpret_cast<int*>(kept_tile) = atomicAdd(p.tickets, 1);
    __syncthreads();
    const int ticket = uniform(*reinterpret_cast<int*>(kept_tile));
    const int key_heads = p.H / p.group, tiles = (p.S + BLOCK_N - 1) / BLOCK_N;
    const int heads_before = ticket / (tiles * p.beside) * p.beside, place_in_group = ticket % (tiles * p.beside);
    const int beside = min(p.beside, p.B * key_heads - heads_before);
    const int tile = place_in_group / beside, first = tile * BLOCK_N;
    const int head = heads_before + place_in_group % beside, b = head / key_heads, key_head = head % key_heads;

    // The queries that see any of the keys, in whole tiles; the same for all heads. A tile is among them if its last query
    // sees keys from `first` on and its first one keys before the tile's end: what `mine` and `last` count on below.
    const int begin = uniform(first_row(p, b, [&](Range r) { return r.stop > first; }));
    const int end = begin == p.T ? 0 : uniform(first_row(p, b, [&](Range r) { return r.first >= first + BLOCK_N; }));
    const int first_t = begin / BLOCK_M * BLOCK_M, last_t = (end - 1) / BLOCK_M * BLOCK_M;

    const Scalar *q_chunk, *g_chunk;  // a thread's own, in the tile that is loaded next
    const auto point = [&](int h) {
        q_chunk = own_chunk(p.q, b, h, last_t);
        g_chunk = own_chunk(p.g, b, h, last_t);
    };
    const auto load = [&](int t, int at, int stage) {
        load_tile<BLOCK_M>(stages + 2 * stage * TILE, q_chunk, p.q.row, p.T - t, p.head_size);
        load_tile<BLOCK_M>(stages + (2 * stage + 1) * TILE, g_chunk, p.g.row, p.T - t, p.head_size);
        if (threadIdx.x < sizeof(Rows) * BLOCK_M / SIXTEEN / 16)
            cp_async_16(reinterpret_cast<float*>(rows + stage * (BLOCK_M / SIXTEEN)) + 4 * threadIdx.x,
                        reinterpret_cast<const float*>(p.rows + at) + 4 * threadIdx.x, 16);
        cp_async_commit();
        q_chunk -= BLOCK_M * p.q.row;
        g_chunk -= BLOCK_M * p.g.row;
    };
    load_tile<BLOCK_N>(k, own_chunk(p.k, b, key_head, first), p.k.row, p.S - first, p.head_size);
    load_tile<BLOCK_N>(v, own_chunk(p.v, b, key_head, first), p.v.row, p.S - first, p.head_size);
    int heads = first_t < end ? p.group : 0;  // that are left
    int h = key_head * p.group, t = last_t, stage = 0;
    int at = (b * p.H + h) * (p.padded / SIXTEEN) + t / SIXTEEN;  // the tile's place where sixteen rows have one
    if (heads > 0) {
        point(h);
        load(t, at, 0);
    }

    const float scale = exponent_scale(p);
    const int score_row = Scores::row(), score_column = Scores::column();
    Keys::Numbers dk, dv;
    clear(dk);
    clear(dv);
    int added = -1;  // the tile before
    while (heads > 0) {
        const bool onward_h = t == first_t;
        const int next_t = onward_h ? last_t : t - BLOCK_M;
        const int next_at = at + (onward_h ? p.padded + last_t - first_t : -BLOCK_M) / SIXTEEN;
        cp_async_wait<0>();
        __syncthreads();  // this stage is here, and nobody reads the other, or P and dS, any more
        const Scalar *q = stages + 2 * stage * TILE, *g = q + TILE;
        const Rows* const rows_here = rows + stage * (BLOCK_M / SIXTEEN);
        const Rows &bottom = rows_here[BLOCK_M / SIXTEEN - 1], *own = rows_here + score_row / SIXTEEN;
        heads -= onward_h;
        if (onward_h && heads > 0) point(h + 1);
        if (STAGES == 2 && heads > 0) load(next_t, next_at, stage ^= 1);

        const int mine = tile - rows_here->first[0] / BLOCK_N;  // earlier blocks that add to this tile's dq
        float logsumexp[2 * Scores::M], product[2 * Scores::M];
#pragma unroll
        for (int slot = 0; slot < 2 * Scores::M; ++slot) {
            logsumexp[slot] = own[slot / 2].logsumexp[row_of(slot % 2)];
            product[slot] = own[slot / 2].product[row_of(slot % 2)];
        }
        Scores::Numbers weights, d_scores, bends;  // bends: the soft cap's derivatives, if there is one
        clear(weights);
        add_product_of_rows<AHEAD>(weights, q, score_row, k, score_column);
        int seen = 0;
        if (threadIdx.x == 0) seen = load_relaxed(p.turns + at);  // on its way while the weights are computed
        if (CHANGED) {
            const Modifier modifier(p, b, h);
            each(weights, bends, [&](float& x, float& bend, int slot, int column) {
                const int position = ALIBI ? own[slot / 2].position[row_of(slot % 2)] : 0;
                const int i = t + score_row + row_of(slot), s = first + score_column + column;
                x = modifier.score(p, x, i, position, s, bend);
            });
        }
        if (first < bottom.first[SIXTEEN - 1] || first + BLOCK_N > rows_here->stop[0])
            each(weights, [&](float& x, int slot, int column) {
                const Rows& sixteen = own[slot / 2];
                const int i = row_of(slot % 2), s = first + score_column + column;
                if ((s < sixteen.first[i]) | (s >= sixteen.stop[i])) x = -INFINITE;
            });
        each(weights, [&](float& x, int slot, int) { x = power_of_two(x * scale - logsumexp[slot]); });
        if (!DROPOUT) store_tile<BLOCK_N>(weights, kept_tile, score_row, score_column);

        if (threadIdx.x == 0) {
            fence_gpu();  // what this block stored before the barrier and others before `seen` comes first
            if (added >= 0) add_relaxed(p.turns + added, 1);
        }
        added = at;

        each(d_scores, [&](float& x, int slot, int) { x = DROPOUT ? 0 : -product[slot]; });
        add_product_of_rows<AHEAD>(d_scores, g, score_row, v, score_column);
        if (DROPOUT) {
            Scores::Numbers kept;
            drop<Scores::M, Scores::N, Scores::ACROSS>(
                p, b, h, t + score_row, first + score_column, [&](int m, int n, int i, float factor) {
                    d_scores.at[m][n][i] = d_scores.at[m][n][i] * factor - product[2 * m + i / 2];
                    kept.at[m][n][i] = weights.at[m][n][i] * factor;
                });
            store_tile<BLOCK_N>(kept, kept_tile, score_row, score_column);
        }
        each(d_scores, weights, [&](float& x, float& weight, int, int) { x *= weight; });
        if (BIAS && p.d_bias)
            each(d_scores, [&](float& x, int slot, int column) {
                const int i = t + score_row + row_of(slot), s = first + score_column + column;
                if (i < p.T && s < p.S) p.d_bias[((i64(b) * p.H + h) * p.T + i) * p.S + s] = x;
            });
        if (SOFT_CAP) each(d_scores, bends, [](float& x, float& bend, int, int) { x *= bend; });
        store_tile<BLOCK_N>(d_scores, d_scores_tile, score_row, score_column);
        const bool last = first + BLOCK_N >= bottom.stop[SIXTEEN - 1];
        if (threadIdx.x == 0 && seen != mine) {
            wait_for(p.turns + at, mine);
            fence_gpu();
        }
        __syncthreads();  // P and dS are there, and it is this block's turn

        Queries::Numbers dq;  // in dq_sums four numbers of a lane lie together, then those of the next lane
        float* const sums = p.dq_sums + i64(at) * (SIXTEEN * HEAD_SIZE) + 4 * threadIdx.x;
        if (mine == 0)
            clear(dq);
        else
#pragma unroll
            for (int i = 0; i < Queries::M * Queries::N; ++i)
                load_l2(dq.at[i / Queries::N][i % Queries::N], sums + 4 * THREADS * i);
        add_product_of_tiles<BLOCK_N, BLOCK_M, true>(dv, kept_tile, Keys::row(), g, Keys::column());
        add_product_of_tiles<BLOCK_N, BLOCK_M, true>(dk, d_scores_tile, Keys::row(), q, Keys::column());
        add_product_of_tiles<BLOCK_N, BLOCK_N, false>(dq, d_scores_tile, Queries::row(), k, Queries::column());
        if (last)
            store_rows(dq, p.dq.at(b, h, 0), p.dq.row, t + Queries::row(), p.T, Queries::column(), p.head_size,
                       [&](int) { return p.scale; });
        else
#pragma unroll
            for (int i = 0; i < Queries::M * Queries::N; ++i)
                store_l2(sums + 4 * THREADS * i, dq.at[i / Queries::N][i % Queries::N]);

        h += onward_h, t = next_t, at = next_at;
        if (STAGES == 1 && heads > 0) {
            __syncthreads();  // nobody reads it any more
            load(t, at, 0);
        }
    }
    __syncthreads();
    if (added >= 0 && threadIdx.x == 0) {
        fence_gpu();
        add_relaxed(p.turns + added, 1);
    }
    const int row = first + Keys::row(), column = Keys::column();
    store_rows(dk, p.dk.at(b, key_head, 0), p.dk.row, row, p.S, column, p.head_size, [&](int) { return p.scale; });
    store_rows(dv, p.dv.at(b, key_head, 0), p.dv.row, row, p.S, column, p.head_size, [&](int) { return 1.0f; });
    cp_async_wait<0>();  // of a block without queries
}
