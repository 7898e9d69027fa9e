// Attention, forward: out = softmax(scale q k^T) v without the matrix of weights, by tensor cores.
//
// The plan is FlashAttention-2's (Dao 2023, arXiv:2307.08691). A block takes BLOCK_M queries of one head, a warp of it
// BLOCK_M / WARPS of them with their sums in registers; all go along the keys, BLOCK_N at a time:
//
//               k: BLOCK_N keys, v          a warp:  scores = q k^T           16 M x BLOCK_N, registers
//     q         [ tile | tile | ...                  weights = 2^(scores - the highest so far)
//     BLOCK_M                                        out = out * (shrunk, where the highest rose) + weights v
//
// While the tensor cores work on k, v is on its way from memory, and the next k while they work on v. Tiles that no
// query of the block sees are never read, and only those that some see in part are masked. ladder/step3_online.py shows
// the arithmetic alone.
#include "products.cuh"
#include "scores.cuh"

constexpr int M = BLOCK_M / WARPS / 16, N = BLOCK_N / 8, D = HEAD_SIZE / 8;  // a warp's sums: blocks of 16 and of 8

extern "C" __global__ void __launch_bounds__(THREADS) attention_forward(const Problem p) {
    DYNAMIC_SHARED(Scalar, q);
    Scalar* k = q + BLOCK_M * HEAD_SIZE;
    Scalar* v = k + BLOCK_N * HEAD_SIZE;
    __shared__ Range ranges[BLOCK_M];

    // The last queries come first: with a causal mask theirs are the longest rows, and short ones fill the end.
    const int first = (gridDim.x - 1 - blockIdx.x) * BLOCK_M, h = blockIdx.y, b = blockIdx.z;
    const int warp_row = warp_id() * (16 * M);
    const Range top = visible(p, b, first), bottom = visible(p, b, min(first + BLOCK_M, p.T) - 1);
    for (int row = threadIdx.x; row < BLOCK_M; row += THREADS) ranges[row] = visible(p, b, min(first + row, p.T - 1));

    const int begin = top.first / BLOCK_N * BLOCK_N, end = bottom.stop;
    const Scalar *keys = own_chunk(p.k, b, h / p.group, begin), *values = own_chunk(p.v, b, h / p.group, begin);
    load_tile<BLOCK_M>(q, own_chunk(p.q, b, h, first), p.q.row, p.T - first, p.head_size);
    if (begin < end) load_tile<BLOCK_N>(k, keys, p.k.row, p.S - begin, p.head_size);
    cp_async_commit();

    const Modifier modifier(p, b, h);
    const float scale = exponent_scale(p);
    Sums<M, D> out;
    clear(out);
    float highest[2 * M], total[2 * M];  // of each of a lane's rows; `total` of the lane's own columns
#pragma unroll
    for (int slot = 0; slot < 2 * M; ++slot) highest[slot] = -INFINITE, total[slot] = 0;

    for (int key = begin; key < end; key += BLOCK_N) {
        cp_async_wait<0>();
        __syncthreads();  // k is here, and nobody reads v any more
        load_tile<BLOCK_N>(v, values, p.v.row, p.S - key, p.head_size);
        cp_async_commit();
        values += BLOCK_N * p.v.row;

        Sums<M, N> scores;
        clear(scores);
        add_product_of_rows<4>(scores, q, warp_row, k, 0);
        if (CHANGED)
            each(scores, [&](float& x, int slot, int column) {
                const int row = warp_row + row_of(slot);
                float bend;
                x = modifier.score(p, x, first + row, ALIBI ? ranges[row].position : 0, key + column, bend);
            });
        if (key < bottom.first || key + BLOCK_N > top.stop)
            each(scores, [&](float& x, int slot, int column) {
                const Range range = ranges[warp_row + row_of(slot)];
                if ((key + column < range.first) | (key + column >= range.stop)) x = -INFINITE;
            });

#pragma unroll
        for (int slot = 0; slot < 2 * M; ++slot) {
            float most = highest[slot];
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const float* pair = &scores.at[slot / 2][n][slot % 2 * 2];
                most = fmaxf(most, fmaxf(pair[0], pair[1]));
            }
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));  // the four lanes that share the row
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
            const float base = most == -INFINITE ? 0 : most * scale;  // a row that sees nothing yet: 2^(-inf - 0) = 0
            const float shrink = power_of_two(highest[slot] * scale - base);
            highest[slot] = most;
            total[slot] *= shrink;
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    float& x = scores.at[slot / 2][n][slot % 2 * 2 + j];
                    x = power_of_two(x * scale - base);
                    total[slot] += x;
                }
#pragma unroll
            for (int d = 0; d < D; ++d)
#pragma unroll
                for (int j = 0; j < 2; ++j) out.at[slot / 2][d][slot % 2 * 2 + j] *= shrink;
        }
        if (DROPOUT)
            drop<M, N>(p, b, h, first + warp_row, key, [&](int m, int n, int i, float factor) {
                scores.at[m][n][i] *= factor;
            });
        const auto weights = as_left<Scalar>(scores);

        cp_async_wait<0>();
        __syncthreads();  // v is here, and nobody reads k any more
        if (key + BLOCK_N < end) {
            keys += BLOCK_N * p.k.row;
            load_tile<BLOCK_N>(k, keys, p.k.row, p.S - key - BLOCK_N, p.head_size);
            cp_async_commit();
        }
        add_product(out, weights, v);
    }

    float divisor[2 * M];
#pragma unroll
    for (int slot = 0; slot < 2 * M; ++slot) {
        float sum = total[slot];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        divisor[slot] = sum == 0 ? 0 : 1 / sum;
        const int t = first + warp_row + row_of(slot);
        if (lane_id() % 4 == 0 && t < p.T)
            p.logsumexp[(i64(b) * p.H + h) * p.T + t] =
                sum == 0 ? -INFINITE : (highest[slot] * scale + log2f(sum)) * LN_2;
    }
    store_rows(out, p.out.at(b, h, 0), p.out.row, first + warp_row, p.T, 0, p.head_size, [&](int slot) {
        return divisor[slot];
    });
    cp_async_wait<0>();  // of a block without keys
}
