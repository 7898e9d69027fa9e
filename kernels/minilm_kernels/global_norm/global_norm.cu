// The sum of the squares of many arrays in two launches: a sum for each chunk, and the root of their sum. In double, and
// in an order that the sizes alone decide.
#include "array_table.cuh"

extern "C" __global__ __launch_bounds__(256) void sums_of_squares(const u64* addresses, const i64* sizes,
                                                                  const i32* owner, const i32* first_chunk, int arrays,
                                                                  int chunk_size, double* sums) {
    __shared__ double scratch[8];
    const Chunk chunk = chunk_of_block(sizes, owner, first_chunk, chunk_size);
    double sum = 0;
    for_each_place<1, 0>(addresses, arrays, chunk, [&](float(&x)[1]) { sum += double(x[0]) * double(x[0]); });
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ __launch_bounds__(256) void root_of_sum(const double* sums, double* norm, int count) {
    __shared__ double scratch[8];
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) *norm = sqrt(sum);
}
