// A step of AdamW over all arrays in one launch: a block takes a chunk of one array, found in a table.
#include "array_table.cuh"

// What does not change within a step, computed in double precision: by the host (scalars.py) or by `adamw_scalars`.
struct Scalars {
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

// The scalars come by value, or, where `given` is not null, from the card's memory: a launch that was captured in a
// graph is replayed with other ones. There a grad_scale of NaN says that nothing is to be changed.
extern "C" __global__ __launch_bounds__(256) void adamw(const u64* addresses, const i64* sizes, const i32* owner,
                                                        const i64* starts, int arrays, int chunk_size,
                                                        const Scalars* given, float grad_scale, float keep, float l2,
                                                        float fresh1, float beta2, float fresh2, float step_size,
                                                        float root_scale, float eps) {
    Scalars s = {grad_scale, keep, l2, fresh1, beta2, fresh2, step_size, root_scale, eps};
    if (given) {
        s = *given;
        if (isnan(s.grad_scale)) return;
    }
    const Chunk chunk = chunk_of_block(sizes, owner, starts, chunk_size);
    SCALAR* p = reinterpret_cast<SCALAR*>(addresses[chunk.array]) + chunk.first;
    const SCALAR* g = reinterpret_cast<const SCALAR*>(addresses[arrays + chunk.array]) + chunk.first;
    SCALAR* m = reinterpret_cast<SCALAR*>(addresses[2 * arrays + chunk.array]) + chunk.first;
    SCALAR* v = reinterpret_cast<SCALAR*>(addresses[3 * arrays + chunk.array]) + chunk.first;

    auto update = [&](SCALAR& parameter, SCALAR gradient, SCALAR& mean, SCALAR& square) {
        const float before = to_float(parameter);
        const float grad = to_float(gradient) * s.grad_scale + s.l2 * before;
        const float first = to_float(mean) + s.fresh1 * (grad - to_float(mean));
        const float second = to_float(square) * s.beta2 + s.fresh2 * grad * grad;
        mean = from_float<SCALAR>(first);
        square = from_float<SCALAR>(second);
        parameter = from_float<SCALAR>(before * s.keep - s.step_size * first / (sqrtf(second) * s.root_scale + s.eps));
    };
    constexpr int PACK = PACKED ? 16 / sizeof(SCALAR) : 1;
    using Numbers = Pack<SCALAR, PACK>;
    const int packs = int(chunk.count / PACK);
    for (int i = threadIdx.x; i < packs; i += blockDim.x) {
        Numbers ps = reinterpret_cast<Numbers*>(p)[i], ms = reinterpret_cast<Numbers*>(m)[i];
        Numbers vs = reinterpret_cast<Numbers*>(v)[i];
        const Numbers gs = reinterpret_cast<const Numbers*>(g)[i];
#pragma unroll
        for (int j = 0; j < PACK; ++j) update(ps.at[j], gs.at[j], ms.at[j], vs.at[j]);
        reinterpret_cast<Numbers*>(p)[i] = ps;
        reinterpret_cast<Numbers*>(m)[i] = ms;
        reinterpret_cast<Numbers*>(v)[i] = vs;
    }
    for (int i = packs * PACK + threadIdx.x; i < chunk.count; i += blockDim.x) update(p[i], g[i], m[i], v[i]);
}
