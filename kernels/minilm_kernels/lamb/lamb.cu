// A step of LAMB over all arrays: a pass that moves the means and sums up squares chunk by chunk, the arrays' ratios from
// these sums, and a pass that moves the parameters. The order of the sums is decided by the sizes alone.
//
// The update u is not kept in between: it is computed again from the means, which costs no more than to read it.
#include "step.cuh"

struct Scalars {  // scalars.py has the formulas
    float grad_scale, beta1, fresh1, beta2, fresh2, scale, root_scale, eps, decay, lr;
};

extern "C" __global__ void lamb_scalars(const double* lr, const double* step, const double* grad_scale, double beta1,
                                        double beta2, double eps, double weight_decay, Scalars* out) {
    Scalars s;
    s.grad_scale = float(*grad_scale);
    s.beta1 = float(beta1);
    s.fresh1 = float(1 - beta1);
    s.beta2 = float(beta2);
    s.fresh2 = float(1 - beta2);
    s.scale = float(1 / (1 - pow(beta1, *step)));
    s.root_scale = float(1 / sqrt(1 - pow(beta2, *step)));
    s.eps = float(eps);
    s.decay = float(weight_decay);
    s.lr = float(*lr);
    *out = s;
}

// A number as the next pass will read it.
__device__ __forceinline__ float stored(float x) { return to_float(from_float<SCALAR>(x)); }

__device__ __forceinline__ float update_of(const Scalars& s, float parameter, float mean, float square) {
    return mean * s.scale / (sqrtf(square) * s.root_scale + s.eps) + s.decay * parameter;
}

// squares (chunks, 2): each chunk's sums, of the parameters and of their updates; null where nobody wants them.
extern "C" __global__ __launch_bounds__(256) void lamb_means(const u64* addresses, const i64* sizes, const i32* owner,
                                                             const i32* first_chunk, int arrays, int chunk_size,
                                                             double* squares, const Scalars* given, Scalars values) {
    __shared__ double scratch[8];
    if (is_left_out(given)) return;
    const Scalars s = given ? *given : values;
    const Chunk chunk = chunk_of_block(sizes, owner, first_chunk, chunk_size);
    double weight = 0, update = 0;
    for_each_place<4, 0b0110>(addresses, arrays, chunk, [&](float(&x)[4]) {
        auto& [parameter, mean, square, gradient] = x;
        const float grad = gradient * s.grad_scale;
        mean = stored(mean * s.beta1 + s.fresh1 * grad);
        square = stored(square * s.beta2 + s.fresh2 * grad * grad);
        if (squares) {
            const double p = parameter, u = update_of(s, parameter, mean, square);
            weight += p * p;
            update += u * u;
        }
    });
    if (!squares) return;
    weight = block_sum(weight, scratch);
    update = block_sum(update, scratch);
    if (threadIdx.x == 0) {
        squares[2 * blockIdx.x] = weight;
        squares[2 * blockIdx.x + 1] = update;
    }
}

// ratios (arrays,): |p|, at most `largest`, over |u|; 1 where one of them is 0. A block takes an array.
extern "C" __global__ __launch_bounds__(256) void lamb_ratios(const i32* first_chunk, const double* squares,
                                                              double largest, float* ratios) {
    __shared__ double scratch[8];
    double weight = 0, update = 0;
    for (int chunk = first_chunk[blockIdx.x] + threadIdx.x; chunk < first_chunk[blockIdx.x + 1]; chunk += blockDim.x) {
        weight += squares[2 * chunk];
        update += squares[2 * chunk + 1];
    }
    weight = sqrt(block_sum(weight, scratch));
    update = sqrt(block_sum(update, scratch));
    if (threadIdx.x == 0)
        ratios[blockIdx.x] = weight > 0 && update > 0 ? float((weight < largest ? weight : largest) / update) : 1.0f;
}

// `ratios` may be null: 1 for all arrays.
extern "C" __global__ __launch_bounds__(256) void lamb_move(const u64* addresses, const i64* sizes, const i32* owner,
                                                            const i32* first_chunk, int arrays, int chunk_size,
                                                            const float* ratios, const Scalars* given, Scalars values) {
    if (is_left_out(given)) return;
    const Scalars s = given ? *given : values;
    const Chunk chunk = chunk_of_block(sizes, owner, first_chunk, chunk_size);
    const float rate = ratios ? s.lr * ratios[chunk.array] : s.lr;
    for_each_place<3, 0b001>(addresses, arrays, chunk, [&](float(&x)[3]) {
        auto& [parameter, mean, square] = x;
        parameter -= rate * update_of(s, parameter, mean, square);
    });
}
