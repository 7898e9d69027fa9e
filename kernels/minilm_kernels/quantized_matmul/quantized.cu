// Weights in blocks of 32: as numbers, and multiplied where they lie.
#include "blocks.cuh"

// Bytes of a block are at even addresses only.
__device__ __forceinline__ u16 two_bytes(const u8* from) { return *reinterpret_cast<const u16*>(from); }
__device__ __forceinline__ float scale_of(const u8* block) { return f16_value(two_bytes(block)); }

// The part's numbers, as integers: -128 to 127, -8 to 7 (Q4_0) or 0 to 15 (Q4_1).
__device__ __forceinline__ void integers(const u8* block, int part, float (&q)[PART]) {
    if (FORMAT == 80) {
#pragma unroll
        for (int j = 0; j < PART; j += 2) {
            const u16 two = two_bytes(block + HEAD + PART * part + j);
            q[j] = i8(two & 255);
            q[j + 1] = i8(two >> 8);
        }
    } else {
        const u32 low = two_bytes(block + HEAD + 4 * part), high = two_bytes(block + HEAD + 4 * part + 2);
        const u32 bytes = low | high << 16;
#pragma unroll
        for (int j = 0; j < PART; ++j) {
            const int nibble = int(bytes >> (8 * (j % 4) + 4 * (j / 4)) & 15);
            q[j] = nibble - (FORMAT == 40 ? 8 : 0);
        }
    }
}

// A thread makes the numbers of a quarter of a block.
extern "C" __global__ __launch_bounds__(256) void dequantize(const u8* blocks, SCALAR* out, i64 count) {
    const i64 thread = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (thread >= count) return;
    const u8* block = blocks + thread / 4 * BYTES;
    const int part = thread % 4;
    const float scale = scale_of(block), least = FORMAT == 41 ? f16_value(two_bytes(block + 2)) : 0;
    float q[PART];
    integers(block, part, q);
#pragma unroll
    for (int j = 0; j < PART; ++j) out[thread / 4 * BLOCK + place(part, j)] = from_float<SCALAR>(scale * q[j] + least);
}

// y[m, n] = sum over k of x[m, k] w[n, k]: a warp for each n, whose lanes go over the row's blocks, four a block, for
// ROWS rows of x at a time. x is not rounded; a block's scale multiplies the sum of its integers' products.
extern "C" __global__ __launch_bounds__(128) void quantized_matmul(const SCALAR* x, const u8* blocks, SCALAR* y, int rows,
                                                                   int length, int outputs) {
    const int n = blockIdx.x * (blockDim.x / WARP) + warp_id(), lane = lane_id(), part = lane % 4;
    const int first_row = blockIdx.y * ROWS;
    const int row_blocks = length / BLOCK;
    float sums[ROWS] = {};
    if (n < outputs) {
        const u8* row = blocks + i64(n) * row_blocks * BYTES;
        for (int b = lane / 4; b < row_blocks; b += WARP / 4) {
            const u8* block = row + b * BYTES;
            const float scale = scale_of(block), least = FORMAT == 41 ? f16_value(two_bytes(block + 2)) : 0;
            float q[PART];
            integers(block, part, q);
#pragma unroll
            for (int m = 0; m < ROWS; ++m) {
                if (first_row + m >= rows) break;
                const SCALAR* numbers = x + i64(first_row + m) * length + b * BLOCK;
                float products = 0, total = 0;
#pragma unroll
                for (int j = 0; j < PART; ++j) {
                    const float number = to_float(numbers[place(part, j)]);
                    products += q[j] * number;
                    total += number;
                }
                sums[m] += scale * products;
                if (FORMAT == 41) sums[m] += least * total;
            }
        }
    }
#pragma unroll
    for (int m = 0; m < ROWS; ++m) {
        const float sum = warp_sum(sums[m]);
        if (lane == 0 && n < outputs && first_row + m < rows)
            y[i64(first_row + m) * outputs + n] = from_float<SCALAR>(sum);
    }
}
