// Attention's forward pass for Hopper, after FlashAttention-3 (Shah et al. 2024, arXiv:2407.08608).
//
// A block computes tiles of ROWS queries of one head, with its keys passing by in blocks of KEYS, the last first. One
// warpgroup only fetches: a single thread of it asks the copy engine for boxes. CONSUMERS warpgroups compute, 64 queries
// each:
//
//     copy engine    Q  K0  K1  V0  K2  V1 ...                   (STAGES blocks of keys and of values are held)
//     tensor cores         QK0 | QK1, P0V0 | QK2, P1V1 | ... PnVn
//     the others             softmax0  | softmax1  | softmax2 ...
//
// A warpgroup's softmax of a block runs beside its own product of the last block's weights and values, and, with
// PINGPONG, beside the other warpgroups' products. Weights go from the one product to the other in registers.
//
// Macros: SCALAR (f16 or bf16), HEAD_SIZE (a multiple of 16 up to 256), KEYS (likewise), CONSUMERS (2 or 3), STAGES,
// PINGPONG (0 or 1).
#include "softmax.cuh"
#include "tiles.cuh"

// Named barriers, one of each for each warpgroup that computes: TURN, of those that wait for their turn at the tensor cores
// and the 128 that pass it on, and STORE.
constexpr int TURN = 1, STORE = TURN + CONSUMERS;

// ---- The warpgroup that fetches

__device__ __forceinline__ void fetch(
    const TensorMap* map, u32 to, u32 barrier, int panel_bytes, int row, int head, int batch) {
    barrier_arrive_expect(barrier, PANELS * panel_bytes);
#pragma unroll
    for (int panel = 0; panel < PANELS; ++panel)
        copy_box_in(to + panel * panel_bytes, map, barrier, panel * PANEL_COLUMNS, row, head, batch);
}

// One thread. What it asks for, in the order in which it will be waited for. `current` is where the others read which
// tile the queries belong to, as soon as these are there; a number beyond the last tile ends their work.
__device__ __forceinline__ void fetch_tiles(
    const Problem& problem, const Layout& shared, int* current, const TensorMap* q, const TensorMap* k,
    const TensorMap* v) {
    Ring keys, values;
    u32 parity = 1;  // of the queries' barriers: the first time round their place is empty
    int index = blockIdx.x;
    for (; index < problem.tiles(); parity ^= 1) {
        int next = problem.after(index);  // asked for long before it is needed
        Tile tile(problem, index);
        int key_head = tile.head / (problem.H / problem.Hk);
        for (int block = tile.stop_block; block >= tile.first_block; --block) {
            if (block > tile.first_block) {
                barrier_wait(shared.keys.empty_barrier(keys), keys.parity ^ 1);
                fetch(
                    k, shared.keys.block(keys), shared.keys.full_barrier(keys), KV_PANEL, (block - 1) * KEYS, key_head,
                    tile.batch);
                keys.advance();
            }
            if (block < tile.stop_block) {
                barrier_wait(shared.values.empty_barrier(values), values.parity ^ 1);
                fetch(
                    v, shared.values.block(values), shared.values.full_barrier(values), KV_PANEL, block * KEYS,
                    key_head, tile.batch);
                values.advance();
            } else {
                barrier_wait(shared.query_empty, parity);
                *current = index;
                fetch(q, shared.queries, shared.query_full, Q_PANEL, tile.row, tile.head, tile.batch);
            }
        }
        index = next;
    }
    barrier_wait(shared.query_empty, parity);
    *current = index;
    barrier_arrive(shared.query_full);
}

// ---- The warpgroups that compute

// scores = queries keys^T, 64 x KEYS
__device__ __forceinline__ void start_scores(float (&scores)[KEYS / 2], u32 queries, u32 keys) {
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < HEAD_SIZE; d += 16) {
        // The next 16 columns of a panel are 32 bytes on: it is whole addresses that the hardware swizzles.
        int panel = d / PANEL_COLUMNS, inside = d % PANEL_COLUMNS * 2;
        u64 a = matrix_descriptor(queries + panel * Q_PANEL + inside, 0);
        u64 b = matrix_descriptor(keys + panel * KV_PANEL + inside, 0);
        wgmma(SCALAR{}, scores, a, b, d > 0);
    }
    wgmma_commit();
}

// out += weights values, 64 x HEAD_SIZE
__device__ __forceinline__ void start_values(float (&out)[HEAD_SIZE / 2], u32 (&weights)[KEYS / 4], u32 values) {
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < KEYS / 16; ++step) {
        u64 b = matrix_descriptor(values + step * 16 * PANEL_ROW_BYTES, KV_PANEL);
        const u32* w = weights + 4 * step;
        wgmma_transposed(SCALAR{}, out, w[0], w[1], w[2], w[3], b);
    }
    wgmma_commit();
}

struct Consumer {
    const Layout& shared;
    int group;    // 0 to CONSUMERS - 1
    u32 queries;  // its 64 of the tile's
    Ring keys, values;
    Range range;
    Softmax softmax;
    float out[HEAD_SIZE / 2];
    u32 weights[KEYS / 4];

    __device__ __forceinline__ void round_weights(float (&scores)[KEYS / 2]) {
#pragma unroll
        for (int i = 0; i < KEYS / 4; ++i) weights[i] = two_bits(SCALAR{}, scores[2 * i], scores[2 * i + 1]);
    }

    // One arrival a warp; the wait before it was for the whole warpgroup's product, but each warp answers for itself.
    __device__ __forceinline__ static void release(const Buffer& buffer, Ring& ring) {
        if (lane_id() == 0) barrier_arrive(buffer.empty_barrier(ring));
        ring.advance();
    }

    // The scores of the first block and their weights.
    __device__ __forceinline__ void begin(int block) {
        float scores[KEYS / 2], correction[2];
        barrier_wait(shared.keys.full_barrier(keys), keys.parity);
        start_scores(scores, queries, shared.keys.block(keys));
        wgmma_wait<0>();
        wgmma_keep(scores);
        release(shared.keys, keys);
        range.hide(scores, block);
        softmax.add(scores, correction);  // of nothing: `correction` is for sums that are still 0
        round_weights(scores);
    }

    // The scores of a block, whose keys have been waited for, beside the last block's product with its values.
    template <bool MASKED>
    __device__ __forceinline__ void step(int block, int first_block) {
        float scores[KEYS / 2], correction[2];
        if (PINGPONG) named_barrier_sync(TURN + group, 256);
        wgmma_keep(out);
        wgmma_keep(weights);
        start_scores(scores, queries, shared.keys.block(keys));
        barrier_wait(shared.values.full_barrier(values), values.parity);
        start_values(out, weights, shared.values.block(values));
        if (PINGPONG) named_barrier_arrive(TURN + (group + 1) % CONSUMERS, 256);
        wgmma_wait<1>();
        wgmma_keep(scores);
        release(shared.keys, keys);
        if (MASKED) range.hide(scores, block);
        softmax.add(scores, correction);
        // The next keys are waited for here because no compiler moves code past the loop that waiting is: it would put
        // the exponentials behind the wait for the other product, where they are first used, and nothing would overlap.
        wgmma_keep(scores);
        if (block > first_block) barrier_wait(shared.keys.full_barrier(keys), keys.parity);
        wgmma_wait<0>();
        wgmma_keep(out);
        wgmma_keep(weights);
        release(shared.values, values);
#pragma unroll
        for (int i = 0; i < HEAD_SIZE / 2; ++i) out[i] *= correction[i / 2 % 2];
        round_weights(scores);
    }

    // The last block's product.
    __device__ __forceinline__ void finish() {
        barrier_wait(shared.values.full_barrier(values), values.parity);
        wgmma_keep(out);
        wgmma_keep(weights);
        start_values(out, weights, shared.values.block(values));
        wgmma_wait<0>();
        wgmma_keep(out);
        release(shared.values, values);
    }

    __device__ __forceinline__ void run(const Problem& problem, const Tile& tile) {
        int row = 64 * group + warp_id() % 4 * 16 + lane_id() / 4;  // the first of this thread's two
        for (int i = 0; i < 2; ++i) {
            int position = tile.position + row + 8 * i;
            range.first[i] = position - problem.left;
            range.stop[i] = min(tile.length, position + problem.right + 1);
        }
        // Blocks from `whole_first` to `whole_stop` - 1 are seen whole by all 64 rows of this warpgroup.
        int top = tile.position + 64 * group;
        int whole_stop = max(0, min(tile.length, top + problem.right + 1)) / KEYS;
        int whole_first = (max(0, top + 63 - problem.left) + KEYS - 1) / KEYS;

        softmax.start();
#pragma unroll
        for (int i = 0; i < HEAD_SIZE / 2; ++i) out[i] = 0;
        int block = tile.stop_block - 1;
        if (block < tile.first_block) return;  // no key is seen by any row
        begin(block--);
        if (block >= tile.first_block) barrier_wait(shared.keys.full_barrier(keys), keys.parity);
        for (; block >= max(whole_stop, tile.first_block); --block) step<true>(block, tile.first_block);
        for (; block >= max(whole_first, tile.first_block); --block) step<false>(block, tile.first_block);
        for (; block >= tile.first_block; --block) step<true>(block, tile.first_block);
        finish();
    }

    // Divides by the sums, rounds, and has the copy engine write the 64 rows from where the queries were; rows beyond T
    // it leaves out. `staging` is the shared memory at `queries`.
    __device__ __forceinline__ void write(
        const Problem& problem, const Tile& tile, unsigned char* staging, const TensorMap* map, float* logsumexp) {
        float inverse[2];
        int row = warp_id() % 4 * 16 + lane_id() / 4;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float sum = softmax.sum[i];
            sum += __shfl_xor_sync(ALL_LANES, sum, 1);
            sum += __shfl_xor_sync(ALL_LANES, sum, 2);
            inverse[i] = sum == 0 ? 0.0f : 1 / sum;
            int t = tile.row + 64 * group + row + 8 * i;
            if (lane_id() % 4 == 0 && t < problem.T)
                logsumexp[i64(tile.batch * problem.H + tile.head) * problem.T + t] =
                    sum == 0 ? MINUS_INFINITY : (softmax.largest[i] * softmax.scale) * LN_2 + logf(sum);
        }
#pragma unroll
        for (int i = 0; i < HEAD_SIZE / 2; i += 2) {
            int column = i / 4 * 8 + lane_id() % 4 * 2, second = i / 2 % 2;
            unsigned char* panel = staging + column / PANEL_COLUMNS * Q_PANEL;
            u32 two = two_bits(SCALAR{}, out[i] * inverse[second], out[i + 1] * inverse[second]);
            *reinterpret_cast<u32*>(panel + swizzled(row + 8 * second, column % PANEL_COLUMNS)) = two;
        }
        async_proxy_fence();  // what was stored above, before the copy engine reads it
        named_barrier_sync(STORE + group, 128);
        if (threadIdx.x % 128 == 0) {
#pragma unroll
            for (int panel = 0; panel < PANELS; ++panel)
                copy_box_out(
                    map, queries + panel * Q_PANEL, panel * PANEL_COLUMNS, tile.row + 64 * group, tile.head, tile.batch);
            copies_out_commit();
            copies_out_wait_read();
            barrier_arrive(shared.query_empty);  // the next tile's queries may come
        }
        __syncwarp();  // a warp must be together again for its next product
    }
};

__device__ __forceinline__ void compute_tiles(
    const Problem& problem, const Layout& shared, unsigned char* memory, int group, const TensorMap* map,
    float* logsumexp) {
    Consumer consumer{shared, group, shared.queries + group * 64 * PANEL_ROW_BYTES};
    consumer.softmax.scale = problem.scale * LOG2_E;
    if (PINGPONG && group == 0) named_barrier_arrive(TURN, 256);  // the first turn is the first group's
    for (u32 parity = 0;; parity ^= 1) {
        barrier_wait(shared.query_full, parity);
        int index = __shfl_sync(ALL_LANES, *reinterpret_cast<const int*>(memory + Layout::TILE), 0);
        if (index >= problem.tiles()) break;
        Tile tile(problem, index);
        consumer.run(problem, tile);
        consumer.write(problem, tile, memory + group * 64 * PANEL_ROW_BYTES, map, logsumexp);
    }
}

// Any number of blocks of 128 (CONSUMERS + 1) threads, best as many as there are multiprocessors: each holds one.
extern "C" __global__ void __launch_bounds__(128 * (CONSUMERS + 1), 1) attention_forward(
    const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v,
    const __grid_constant__ TensorMap out, float* logsumexp, const int* key_lengths, int H, int Hk, int T, int S,
    int left, int right, float scale, int heads, int heads_at_once, int* taken) {
    DYNAMIC_SHARED(unsigned char, memory);
    Problem problem{H, Hk, T, S, left, right, key_lengths, scale, heads, heads_at_once, taken};
    Layout shared(shared_offset(memory));
    if (threadIdx.x == 0) {
        shared.init_barriers();
        tensor_map_prefetch(&q);
        tensor_map_prefetch(&k);
        tensor_map_prefetch(&v);
        tensor_map_prefetch(&out);
    }
    __syncthreads();
    // The registers of a multiprocessor, 65536, go to those who need them. Through the shuffle the compiler knows that
    // the number is the same for all 32 lanes of a warp.
    int warpgroup = __shfl_sync(ALL_LANES, int(threadIdx.x) / 128, 0);
    if (warpgroup == 0) {
        registers_decrease<CONSUMERS == 2 ? 24 : 32>();
        if (threadIdx.x == 0) fetch_tiles(problem, shared, reinterpret_cast<int*>(memory + Layout::TILE), &q, &k, &v);
    } else {
        registers_increase<CONSUMERS == 2 ? 240 : 160>();
        compute_tiles(problem, shared, memory, warpgroup - 1, &out, logsumexp);
    }
}
