// Attention of a few queries to many keys, as in decoding: the keys are split among blocks, whose results a second
// launch puts together. What takes the time is reading K and V, and each is read once for all queries of a key head.
//
// HEAD_SIZE is a multiple of 8 up to 256; ROWS queries of a key head (its group's heads times their positions) are
// worked on at a time. A key is taken by a group of LANES lanes, each with packs of 16 bytes of it in registers, so that
// several keys pass through a warp at once, each group with sums of its own (Dao et al. 2023, Flash-Decoding).
#include "common.cuh"

constexpr int WIDTH = 16 / sizeof(SCALAR), PACKS = (HEAD_SIZE + WIDTH - 1) / WIDTH;
constexpr int LANES = PACKS > 16 ? 32 : PACKS > 8 ? 16 : PACKS > 4 ? 8 : 4;  // that share a key
constexpr int MINE = (PACKS + LANES - 1) / LANES;                           // packs of a key that a lane has
constexpr int WARPS = 4, GROUPS = WARPS * WARP / LANES;                     // groups of lanes in a block
constexpr int KEPT = HEAD_SIZE + 2;  // of a row in shared memory: its sums, their largest score and their weight


// The scores' largest so far, the weights' sum as if that were 0, and the values' under the same weights.
struct State {
    float largest, weight;
};

__device__ __forceinline__ void load_packs(const SCALAR* row, int lane, float (&x)[MINE * WIDTH]) {
#pragma unroll
    for (int p = 0; p < MINE; ++p) {
        const int pack = p * LANES + lane;
        Pack<SCALAR, WIDTH> loaded;
        if (pack < PACKS) loaded = *reinterpret_cast<const Pack<SCALAR, WIDTH>*>(row + pack * WIDTH);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) x[p * WIDTH + j] = pack < PACKS ? to_float(loaded.at[j]) : 0.0f;
    }
}

// One split of the keys for ROWS rows of a key head. Row r is head r / length of the group, position r % length; it sees
// the keys from position - left to position + right (-1: without end), below key_lengths[batch]. Its part of the output,
// its largest score and its weight go to sums (splits, B, H, T, HEAD_SIZE) and states (splits, B, H, T, 2).
extern "C" __global__ __launch_bounds__(128) void decode_split(const SCALAR* q, const SCALAR* k, const SCALAR* v,
                                                               const i64* key_lengths, float* sums, float* states,
                                                               i64 q_batch, i64 q_head, i64 q_row, i64 k_batch,
                                                               i64 k_head, i64 k_row, i64 v_batch, i64 v_head,
                                                               i64 v_row, int key_heads, int group, int length, int keys,
                                                               int keys_of_split, int left, int right, float scale,
                                                               float soft_cap) {
    DYNAMIC_SHARED(float, kept);  // GROUPS x ROWS x KEPT
    const int split = blockIdx.x, batch = blockIdx.y / key_heads, key_head = blockIdx.y % key_heads;
    const int first_row = blockIdx.z * ROWS, rows = min(ROWS, group * length - first_row);
    const int lane = threadIdx.x % LANES, lane_group = threadIdx.x / LANES;
    const int seen = key_lengths ? int(min(max(key_lengths[batch], i64(0)), i64(keys))) : keys;

    float queries[ROWS][MINE * WIDTH], out[ROWS][MINE * WIDTH];
    int from[ROWS], to[ROWS];  // keys that the row sees
    State state[ROWS];
    int begin = keys, end = 0;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const int row = first_row + min(r, rows - 1), t = row % length, position = keys - length + t;
        load_packs(q + batch * q_batch + (key_head * group + row / length) * q_head + t * q_row, lane, queries[r]);
        from[r] = left < 0 ? 0 : max(0, position - left);
        to[r] = right < 0 ? seen : min(seen, position + right + 1);
        begin = min(begin, from[r]);
        end = max(end, to[r]);
        state[r] = {-INFINITY, 0};
#pragma unroll
        for (int j = 0; j < MINE * WIDTH; ++j) out[r][j] = 0;
    }
    begin = max(begin, split * keys_of_split);
    end = min(end, (split + 1) * keys_of_split);

    k += batch * k_batch + key_head * k_head;
    v += batch * v_batch + key_head * v_head;
    for (int base = begin; base < end; base += GROUPS) {  // all lanes of a warp go round as often
        const int key = base + lane_group;
        float numbers[MINE * WIDTH], scores[ROWS];
        load_packs(k + i64(min(key, end - 1)) * k_row, lane, numbers);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float dot = 0;
#pragma unroll
            for (int j = 0; j < MINE * WIDTH; ++j) dot += queries[r][j] * numbers[j];
#pragma unroll
            for (int distance = LANES / 2; distance > 0; distance /= 2)
                dot += __shfl_xor_sync(ALL_LANES, dot, distance);
            dot *= scale;
            if (soft_cap > 0) dot = soft_cap * tanhf(dot / soft_cap);
            scores[r] = key < end && key >= from[r] && key < to[r] ? dot : -INFINITY;
        }
        load_packs(v + i64(min(key, end - 1)) * v_row, lane, numbers);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            if (scores[r] == -INFINITY) continue;
            const float largest = max_or_nan(state[r].largest, scores[r]);
            if (largest != state[r].largest) {
                const float factor = expf(state[r].largest - largest);  // 0 for the first key
                state[r].weight *= factor;
#pragma unroll
                for (int j = 0; j < MINE * WIDTH; ++j) out[r][j] *= factor;
                state[r].largest = largest;
            }
            const float weight = expf(scores[r] - largest);
            state[r].weight += weight;
#pragma unroll
            for (int j = 0; j < MINE * WIDTH; ++j) out[r][j] += weight * numbers[j];
        }
    }

#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        float* row = kept + (lane_group * ROWS + r) * KEPT;
        for (int p = 0; p < MINE; ++p)
            for (int j = 0; j < WIDTH; ++j) {
                const int column = (p * LANES + lane) * WIDTH + j;
                if (column < HEAD_SIZE) row[column] = out[r][p * WIDTH + j];
            }
        if (lane == 0) row[HEAD_SIZE] = state[r].largest, row[HEAD_SIZE + 1] = state[r].weight;
    }
    __syncthreads();
    const i64 heads = i64(key_heads) * group, all_rows = i64(gridDim.y / key_heads) * heads * length;
    for (int i = threadIdx.x; i < rows * HEAD_SIZE; i += blockDim.x) {
        const int r = i / HEAD_SIZE, column = i % HEAD_SIZE, row = first_row + r;
        float largest = -INFINITY, weight = 0, sum = 0;
        for (int g = 0; g < GROUPS; ++g) largest = max_or_nan(largest, kept[(g * ROWS + r) * KEPT + HEAD_SIZE]);
        for (int g = 0; g < GROUPS; ++g) {
            const float* part = kept + (g * ROWS + r) * KEPT;
            if (part[HEAD_SIZE] == -INFINITY) continue;  // it saw no key
            const float factor = expf(part[HEAD_SIZE] - largest);
            weight += factor * part[HEAD_SIZE + 1];
            sum += factor * part[column];
        }
        const i64 at = split * all_rows + (batch * heads + key_head * group + row / length) * length + row % length;
        sums[at * HEAD_SIZE + column] = sum;
        if (column == 0) states[2 * at] = largest, states[2 * at + 1] = weight;
    }
}

// The splits' parts put together, a block for each of the B H T rows. A row that sees no key is 0.
extern "C" __global__ __launch_bounds__(128) void decode_combine(const float* sums, const float* states, SCALAR* out,
                                                                 float* logsumexp, i64 out_batch, i64 out_head,
                                                                 i64 out_row, int heads, int length, int splits) {
    const i64 row = blockIdx.x, rows = gridDim.x;
    float largest = -INFINITY, weight = 0;
    for (int s = 0; s < splits; ++s) largest = max_or_nan(largest, states[2 * (s * rows + row)]);
    for (int s = 0; s < splits; ++s) {
        const float* state = states + 2 * (s * rows + row);
        if (state[0] != -INFINITY) weight += state[1] * expf(state[0] - largest);
    }
    out += row / length / heads * out_batch + row / length % heads * out_head + row % length * out_row;
    for (int column = threadIdx.x; column < HEAD_SIZE; column += blockDim.x) {
        float sum = 0;
        for (int s = 0; s < splits; ++s) {
            const float highest = states[2 * (s * rows + row)];
            if (highest != -INFINITY) sum += sums[(s * rows + row) * HEAD_SIZE + column] * expf(highest - largest);
        }
        out[column] = from_float<SCALAR>(largest == -INFINITY ? 0.0f : sum / weight);
    }
    if (threadIdx.x == 0) logsumexp[row] = largest == -INFINITY ? -INFINITY : largest + logf(weight);
}
