// A step of AdamW over all arrays in one launch: a block takes a chunk of one array, found in a table.
#include "step.cuh"

struct Scalars {  // scalars.py has the formulas
    float grad_scale, keep, l2, fresh1, beta2, fresh2, step_size, root_scale, eps;
};

extern "C" __global__ void adamw_scalars(const double* lr, const double* step, const double* grad_scale, double beta1,
                                         double beta2, double eps, double weight_decay, bool decoupled, Scalars* out) {
    Scalars s;
    s.grad_scale = float(*grad_scale);
    s.keep = float(decoupled ? 1 - *lr * weight_decay : 1.0);
    s.l2 = float(decoupled ? 0.0 : weight_decay);
    s.fresh1 = float(1 - beta1);
    s.beta2 = float(beta2);
    s.fresh2 = float(1 - beta2);
    s.step_size = float(*lr / (1 - pow(beta1, *step)));
    s.root_scale = float(1 / sqrt(1 - pow(beta2, *step)));
    s.eps = float(eps);
    *out = s;
}

extern "C" __global__ __launch_bounds__(256) void adamw(const u64* addresses, const i64* sizes, const i32* owner,
                                                        const i32* first_chunk, int arrays, int chunk_size,
                                                        const Scalars* given, Scalars values) {
    if (is_left_out(given)) return;
    const Scalars s = given ? *given : values;
    const Chunk chunk = chunk_of_block(sizes, owner, first_chunk, chunk_size);
    for_each_place<4, 0b0111>(addresses, arrays, chunk, [&](float(&x)[4]) {
        auto& [parameter, mean, square, gradient] = x;
        const float grad = gradient * s.grad_scale + s.l2 * parameter;
        mean += s.fresh1 * (grad - mean);
        square = square * s.beta2 + s.fresh2 * grad * grad;
        parameter = parameter * s.keep - s.step_size * mean / (sqrtf(square) * s.root_scale + s.eps);
    });
}
