// Each thread asks Philox for the words of one counter, and drops or scales the four elements that are the counter's.
// A recorded graph's seed, which changes from launch to launch, is read from `seed_at`; null: it is `seed`.
#include "philox.cuh"

extern "C" __global__ __launch_bounds__(256) void dropout(const SCALAR* x, SCALAR* y, u32 threshold, float scale,
                                                          u64 seed, const u64* seed_at,
                                                          u64 offset, i64 count) {
    const i64 counter = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    const i64 first = 4 * counter;
    if (first >= count) return;
    const uint4 drawn = philox(u64(counter), offset, seed_at != nullptr ? *seed_at : seed);
    const u32 words[4] = {drawn.x, drawn.y, drawn.z, drawn.w};
    const bool packed = first + 4 <= count && (reinterpret_cast<u64>(x) | reinterpret_cast<u64>(y)) % (4 * sizeof(SCALAR)) == 0;
    Pack<SCALAR, 4> pack;
    if (packed) pack = *reinterpret_cast<const Pack<SCALAR, 4>*>(x + first);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        if (!packed && first + j < count) pack.at[j] = x[first + j];
        pack.at[j] = from_float<SCALAR>(words[j] >= threshold ? to_float(pack.at[j]) * scale : 0.0f);
        if (!packed && first + j < count) y[first + j] = pack.at[j];
    }
    if (packed) *reinterpret_cast<Pack<SCALAR, 4>*>(y + first) = pack;
}
