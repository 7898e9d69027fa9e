// Philox-4x32-10 (Salmon et al. 2011): the random numbers of dropout, the same as on every other device.
#pragma once
#include "common.cuh"

// The four words of a counter and an offset under a key.
__device__ __forceinline__ uint4 philox(u64 counter, u64 offset, u64 key) {
    u32 c0 = u32(counter), c1 = u32(counter >> 32), c2 = u32(offset), c3 = u32(offset >> 32);
    u32 k0 = u32(key), k1 = u32(key >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u64 first = u64(c0) * 0xD2511F53u, second = u64(c2) * 0xCD9E8D57u;
        c0 = u32(second >> 32) ^ c1 ^ k0;
        c1 = u32(second);
        c2 = u32(first >> 32) ^ c3 ^ k1;
        c3 = u32(first);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return make_uint4(c0, c1, c2, c3);
}
