"""The emulator's tensor cores and asynchronous copies: what PTX says of them, and what it leaves undefined."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from minilm_kernels.cuda import Program, scalar_name

SOURCE = """#include "common.cuh"

// out = a b: 16 x 16 numbers each, by one warp.
extern "C" __global__ void product(const SCALAR* a, const SCALAR* b, float* out) {
    __shared__ alignas_16 SCALAR tiles[2][16][16];
    const int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) tiles[0][i / 16][i % 16] = a[i], tiles[1][i / 16][i % 16] = b[i];
    __syncwarp();
    u32 x[4], y[4];
    ldmatrix_x4(x, &tiles[0][lane % 16][lane / 16 * 8]);
    ldmatrix_x4_trans(y, &tiles[1][lane % 16][lane / 16 * 8]);
    for (int n = 0; n < 2; ++n) {
        float sums[4] = {0, 0, 0, 0};
        MMA(sums, x, y[2 * n], y[2 * n + 1]);
        for (int i = 0; i < 4; ++i)
            out[(lane / 4 + i / 2 * 8) * 16 + 8 * n + lane % 4 * 2 + i % 2] = sums[i];
    }
}

extern "C" __global__ void copies(const float* x, float* y, int groups_left) {
    __shared__ alignas_16 float kept[3][32][4];
    const int lane = threadIdx.x;
    for (int i = 0; i < 3; ++i) {
        cp_async_16(kept[i][lane], x + lane * 4, i == 1 ? 0 : 16);
        cp_async_commit();
    }
    if (groups_left == 0) cp_async_wait<0>();
    if (groups_left == 1) cp_async_wait<1>();
    __syncwarp();
    for (int i = 0; i < 3; ++i) y[i * 32 + lane] = kept[i][31 - lane][2];
}

extern "C" __global__ void misaligned(const float* x) {
    __shared__ alignas_16 float kept[8];
    cp_async_16(kept, x + 1, 16);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    # g++ wants the alignment in another place than nvcc
    (folder / "kernels.cu").write_text(SOURCE.replace("alignas_16", "__attribute__((aligned(16)))"))

    def compiled(dtype="bfloat16"):
        name = scalar_name(dtype)
        return Program(str(folder / "beside.py"), "kernels.cu", {"SCALAR": name, "MMA": f"mma_m16n8k16_{name}"})

    return compiled


@pytest.mark.parametrize("dtype", [np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)], ids=str)
def test_mma_multiplies_what_ldmatrix_loads(emulated, program, rng, dtype):
    a, b = rng.standard_normal((2, 16, 16)).astype(dtype)
    out = np.zeros((16, 16), np.float32)
    with emulated():
        program(dtype).kernel("product")(1, 32, (a, b, out))
    np.testing.assert_allclose(out, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-6, atol=1e-6)


def test_copies_are_there_when_they_were_waited_for(emulated, program, rng):
    x = rng.standard_normal((32, 4)).astype(np.float32)
    backwards = x[::-1, 2]
    results = {}
    with emulated():
        for groups_left in (0, 1, 9):
            y = results[groups_left] = np.zeros((3, 32), np.float32)
            program().kernel("copies")(1, 32, (x, y, np.int32(groups_left)))
    np.testing.assert_array_equal(results[0], [backwards, 0 * backwards, backwards])  # the second copies no bytes
    np.testing.assert_array_equal(results[1][:2], results[0][:2])
    assert np.isnan(results[1][2]).all()
    assert np.isnan(results[9]).all()


def test_addresses_are_multiples_of_16(emulated, program, cuda_host, rng):
    x = rng.standard_normal(64).astype(np.float32)
    with emulated(), pytest.raises(cuda_host.KernelError, match="multiple of 16"):
        program().kernel("misaligned")(1, 32, (x,))
