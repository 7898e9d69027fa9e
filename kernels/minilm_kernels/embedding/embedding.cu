// The gradient of a lookup: rows of g added to the rows of `out` that they were looked up from.
#include "packs.cuh"

// `sorted` are the indices in ascending order and `order` where they come from; equal ones in the order in which they
// came. The first block of a run of equal indices adds up the run's rows of g, in float and in order, and adds the sum
// to the row of `out`: one writer a number, so that the bits are the same every time. Blocks in y share the columns. An
// index that names no row makes the row nearest to it NaN: to raise an error the host would have to wait for the card.
extern "C" __global__ __launch_bounds__(256) void embedding_backward(const SCALAR* g, const i64* sorted,
                                                                     const i64* order, SCALAR* out, i64 count,
                                                                     i64 rows, int columns) {
    const i64 start = blockIdx.x, index = sorted[start];
    if (start > 0 && sorted[start - 1] == index) return;
    const int column = (blockIdx.y * blockDim.x + threadIdx.x) * WIDTH;
    if (column >= columns) return;
    float sum[WIDTH] = {}, x[WIDTH];
    for (i64 i = start; i < count && sorted[i] == index; ++i) {
        load(g + order[i] * columns + column, x);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) sum[j] += x[j];
    }
    if (index < 0 || index >= rows) {
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) x[j] = NAN;
        store(out + (index < 0 ? 0 : rows - 1) * columns + column, x);
        return;
    }
    SCALAR* to = out + index * columns + column;
    load(to, x);
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) x[j] += sum[j];
    store(to, x);
}
