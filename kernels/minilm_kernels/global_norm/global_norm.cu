// The sum of the squares of many arrays in two launches: a sum for each chunk, and the root of their sum. In double, and
// in an order that the sizes alone decide.
#include "array_table.cuh"

// The sum over a block of 256 threads, in thread 0.
__device__ __forceinline__ double block_total(double x, double* scratch) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
    if (lane_id() == 0) scratch[warp_id()] = x;
    __syncthreads();
    double total = 0;
    for (int warp = 0; warp < int(blockDim.x) / WARP; ++warp) total += scratch[warp];
    return total;
}

extern "C" __global__ __launch_bounds__(256) void sums_of_squares(const u64* addresses, const i64* sizes,
                                                                  const i32* owner, const i64* starts, int chunk_size,
                                                                  double* sums) {
    __shared__ double scratch[8];
    const Chunk chunk = chunk_of_block(sizes, owner, starts, chunk_size);
    const SCALAR* x = reinterpret_cast<const SCALAR*>(addresses[chunk.array]) + chunk.first;
    constexpr int PACK = PACKED ? 16 / sizeof(SCALAR) : 1;
    const int packs = int(chunk.count / PACK);
    double sum = 0;
    for (int i = threadIdx.x; i < packs; i += blockDim.x) {
        const Pack<SCALAR, PACK> pack = reinterpret_cast<const Pack<SCALAR, PACK>*>(x)[i];
#pragma unroll
        for (int j = 0; j < PACK; ++j) {
            const double number = to_float(pack.at[j]);
            sum += number * number;
        }
    }
    for (int i = packs * PACK + threadIdx.x; i < chunk.count; i += blockDim.x) {
        const double number = to_float(x[i]);
        sum += number * number;
    }
    sum = block_total(sum, scratch);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ __launch_bounds__(256) void root_of_sum(const double* sums, double* norm, int count) {
    __shared__ double scratch[8];
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
    sum = block_total(sum, scratch);
    if (threadIdx.x == 0) *norm = sqrt(sum);
}
