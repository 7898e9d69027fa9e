// What the fetching and the computing warpgroups of forward.cu agree on: the tiles, their order, which blocks of keys
// each needs, and where everything lies in shared memory.
#pragma once
#include "sm90.cuh"

constexpr int ROWS = 64 * CONSUMERS;                                              // queries to a tile
constexpr int PANELS = (HEAD_SIZE + PANEL_COLUMNS - 1) / PANEL_COLUMNS;  // the last is filled up with zeros
constexpr int Q_PANEL = ROWS * PANEL_ROW_BYTES, KV_PANEL = KEYS * PANEL_ROW_BYTES;
constexpr int Q_BYTES = PANELS * Q_PANEL, KV_BYTES = PANELS * KV_PANEL;

// The arrays' sizes and what hides keys. A query t stands at key t + S - T, and sees the keys from `left` before to
// `right` after it, and before the length of its batch row where there are lengths.
struct Problem {
    int H, Hk, T, S;
    int left, right;
    const int* key_lengths;
    float scale;
    int heads;          // B * H
    int heads_at_once;  // so many heads' keys and values are in the L2 cache together
    int* taken;         // how many tiles have been taken beside each block's first, 0 at launch; or null

    __device__ __forceinline__ int row_tiles() const { return (T + ROWS - 1) / ROWS; }
    __device__ __forceinline__ int tiles() const { return row_tiles() * heads; }

    // The tile after `index` of a block. Where masks make some tiles longer than others, whoever is free takes the next;
    // tiles of one length are simply dealt out.
    __device__ __forceinline__ int after(int index) const {
        return gridDim.x + (taken == nullptr ? index : atomicAdd(taken, 1));
    }
};

// One tile of queries and its blocks of keys, `first_block` to `stop_block` - 1.
struct Tile {
    int row, head, batch;
    int position, length;  // the key that its first query stands at, and where its keys end
    int first_block, stop_block;

    // Tiles that run at the same time share keys: all of `heads_at_once` heads' come before the next heads'. Of these
    // the last rows come first: under a causal mask they take longest, and what is short fills the gaps at the end.
    __device__ __forceinline__ Tile(const Problem& problem, int index) {
        int begin = index / (problem.row_tiles() * problem.heads_at_once) * problem.heads_at_once;
        int together = min(problem.heads_at_once, problem.heads - begin);
        int within = index - begin * problem.row_tiles();
        int any_head = begin + within % together;
        row = (problem.row_tiles() - 1 - within / together) * ROWS;
        batch = any_head / problem.H;
        head = any_head % problem.H;
        position = row + problem.S - problem.T;
        length = problem.S;
        if (problem.key_lengths != nullptr) length = max(0, min(length, problem.key_lengths[batch]));
        int last = position + min(ROWS, problem.T - row) - 1;
        first_block = max(0, position - problem.left) / KEYS;
        stop_block = max(first_block, (min(length, last + problem.right + 1) + KEYS - 1) / KEYS);
    }
};

// The places of a ring in order, and which time round it is.
struct Ring {
    int stage = 0;
    u32 parity = 0;

    __device__ __forceinline__ void advance() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

// A ring of blocks of keys, or of values, and a barrier for each place that says when it is full, and when empty.
struct Buffer {
    u32 blocks, full, empty;

    __device__ __forceinline__ u32 block(const Ring& ring) const { return blocks + ring.stage * KV_BYTES; }
    __device__ __forceinline__ u32 full_barrier(const Ring& ring) const { return full + ring.stage * 8; }
    __device__ __forceinline__ u32 empty_barrier(const Ring& ring) const { return empty + ring.stage * 8; }
};

// Shared memory: the queries, in whose place the results are gathered in the end, both rings, the barriers, and the
// number of the tile whose queries are there.
struct Layout {
    u32 queries, query_full, query_empty;
    Buffer keys, values;

    static constexpr int TILE = Q_BYTES + 2 * STAGES * KV_BYTES + (2 + 4 * STAGES) * 8, BYTES = TILE + 8;

    __device__ __forceinline__ explicit Layout(u32 start) {
        u32 barriers = start + Q_BYTES + 2 * STAGES * KV_BYTES;
        queries = start;
        keys = Buffer{start + Q_BYTES, barriers, barriers + STAGES * 8};
        values = Buffer{keys.blocks + STAGES * KV_BYTES, keys.empty + STAGES * 8, keys.empty + 2 * STAGES * 8};
        query_full = values.empty + STAGES * 8;
        query_empty = query_full + 8;
    }

    // By one thread. Each warp that computes says for itself that it is through with a block.
    __device__ __forceinline__ void init_barriers() const {
        for (Ring ring; ring.parity == 0; ring.advance()) {
            barrier_init(keys.full_barrier(ring), 1);
            barrier_init(values.full_barrier(ring), 1);
            barrier_init(keys.empty_barrier(ring), 4 * CONSUMERS);
            barrier_init(values.empty_barrier(ring), 4 * CONSUMERS);
        }
        barrier_init(query_full, 1);
        barrier_init(query_empty, CONSUMERS);
        barrier_init_fence();
    }
};
