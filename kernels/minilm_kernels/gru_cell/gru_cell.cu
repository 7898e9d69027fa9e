// A step of a GRU and its gradient: a thread for each number of the state.
#include "common.cuh"
#include "logistic.cuh"

// Gates lie side by side in rows of 3 C: r, z, n.
extern "C" __global__ __launch_bounds__(256) void gru_cell(const SCALAR* inputs, const SCALAR* hiddens, const SCALAR* h,
                                                           SCALAR* h_next, SCALAR* activated, int columns, i64 count) {
    const i64 k = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (k >= count) return;
    const i64 at = k / columns * 3 * columns + k % columns;
    const float r = logistic(to_float(inputs[at]) + to_float(hiddens[at]));
    const float z = logistic(to_float(inputs[at + columns]) + to_float(hiddens[at + columns]));
    const float n = tanhf(to_float(inputs[at + 2 * columns]) + r * to_float(hiddens[at + 2 * columns]));
    h_next[k] = from_float<SCALAR>((1 - z) * n + z * to_float(h[k]));
    activated[at] = from_float<SCALAR>(r);
    activated[at + columns] = from_float<SCALAR>(z);
    activated[at + 2 * columns] = from_float<SCALAR>(n);
}

extern "C" __global__ __launch_bounds__(256) void gru_cell_backward(const SCALAR* g, const SCALAR* hiddens,
                                                                    const SCALAR* h, const SCALAR* activated,
                                                                    SCALAR* dinputs, SCALAR* dhiddens, SCALAR* dh,
                                                                    int columns, i64 count) {
    const i64 k = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (k >= count) return;
    const i64 at = k / columns * 3 * columns + k % columns;
    const float r = to_float(activated[at]), z = to_float(activated[at + columns]);
    const float n = to_float(activated[at + 2 * columns]), arriving = to_float(g[k]);
    const float dn = arriving * (1 - z) * (1 - n * n), dz = arriving * (to_float(h[k]) - n) * z * (1 - z);
    const float dr = dn * to_float(hiddens[at + 2 * columns]) * r * (1 - r);
    dinputs[at] = dhiddens[at] = from_float<SCALAR>(dr);
    dinputs[at + columns] = dhiddens[at + columns] = from_float<SCALAR>(dz);
    dinputs[at + 2 * columns] = from_float<SCALAR>(dn);
    dhiddens[at + 2 * columns] = from_float<SCALAR>(dn * r);
    dh[k] = from_float<SCALAR>(arriving * z);
}
