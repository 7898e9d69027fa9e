// A step of an LSTM and its gradient: a thread for each number of the state.
#include "common.cuh"
#include "logistic.cuh"

// Gates lie side by side in rows of 4 C: i, f, g, o.
extern "C" __global__ __launch_bounds__(256) void lstm_cell(const SCALAR* gates, const SCALAR* c, SCALAR* h_next,
                                                            SCALAR* c_next, SCALAR* activated, int columns, i64 count) {
    const i64 n = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (n >= count) return;
    const i64 at = n / columns * 4 * columns + n % columns;
    const float i = logistic(to_float(gates[at])), f = logistic(to_float(gates[at + columns]));
    const float g = tanhf(to_float(gates[at + 2 * columns])), o = logistic(to_float(gates[at + 3 * columns]));
    const float next = f * to_float(c[n]) + i * g;
    c_next[n] = from_float<SCALAR>(next);
    h_next[n] = from_float<SCALAR>(o * tanhf(next));
    activated[at] = from_float<SCALAR>(i);
    activated[at + columns] = from_float<SCALAR>(f);
    activated[at + 2 * columns] = from_float<SCALAR>(g);
    activated[at + 3 * columns] = from_float<SCALAR>(o);
}

extern "C" __global__ __launch_bounds__(256) void lstm_cell_backward(const SCALAR* g_h, const SCALAR* g_c,
                                                                     const SCALAR* activated, const SCALAR* c,
                                                                     const SCALAR* c_next, SCALAR* dgates, SCALAR* dc,
                                                                     int columns, i64 count) {
    const i64 n = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (n >= count) return;
    const i64 at = n / columns * 4 * columns + n % columns;
    const float i = to_float(activated[at]), f = to_float(activated[at + columns]);
    const float g = to_float(activated[at + 2 * columns]), o = to_float(activated[at + 3 * columns]);
    const float t = tanhf(to_float(c_next[n])), arriving = to_float(g_h[n]);
    const float d = to_float(g_c[n]) + arriving * o * (1 - t * t);
    dgates[at] = from_float<SCALAR>(d * g * i * (1 - i));
    dgates[at + columns] = from_float<SCALAR>(d * to_float(c[n]) * f * (1 - f));
    dgates[at + 2 * columns] = from_float<SCALAR>(d * i * (1 - g * g));
    dgates[at + 3 * columns] = from_float<SCALAR>(arriving * t * o * (1 - o));
    dc[n] = from_float<SCALAR>(d * f);
}
