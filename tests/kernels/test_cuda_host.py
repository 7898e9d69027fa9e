"""The emulator of CUDA: it computes what a card would, and says what a kernel does wrong."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from minilm_kernels.cuda import Program, scalar_name

SOURCE = """#include "common.cuh"

extern "C" __global__ __launch_bounds__(64) void row_sums(const SCALAR* x, SCALAR* y, int n) {
    __shared__ float scratch[2];
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += to_float(x[blockIdx.x * n + i]);
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) y[blockIdx.x] = from_float<SCALAR>(sum);
}

extern "C" __global__ void reversed(float* x, int barrier) {
    DYNAMIC_SHARED(float, kept);
    kept[threadIdx.x] = x[threadIdx.x];
    if (barrier) __syncthreads();
    x[threadIdx.x] = kept[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void lanes(int* x) {
    int lane = threadIdx.x;
    x[lane] = __shfl_sync(ALL_LANES, lane, 5);
    x[32 + lane] = __shfl_up_sync(ALL_LANES, lane, 1);
    x[64 + lane] = __shfl_down_sync(ALL_LANES, lane, 3, 8);
    x[96 + lane] = __shfl_xor_sync(ALL_LANES, lane, 2);
    x[128 + lane] = int(__ballot_sync(ALL_LANES, lane % 2));
    if (lane < 16) x[160 + lane] = __shfl_xor_sync(0xffffu, lane, 1);
}

extern "C" __global__ void wrong(float* x, int what) {
    __shared__ float four[4];
    int i = threadIdx.x;
    if (what == 0 && i == 0) x[31] = 0;
    if (what == 1) x[i + 32] = 0;
    if (what == 2 && i < 31) __syncthreads();
    if (what == 3) four[i] = 0;
    if (what == 4) *(float4*)(x + 1) = make_float4(0, 0, 0, 0);
    if (what == 5) x[i] = 1 / (i - 3);
    if (what == 6 && i % 2) __syncwarp();
    if (what == 6 && i % 2 == 0) __shfl_sync(ALL_LANES, i, 0);
    if (what == 7) x[i] = four[i % 4];
    four[0] = x[0];
}

extern "C" __global__ void halves(const float* x, u16* y, float* back) {
    int i = threadIdx.x;
    y[i] = from_float<SCALAR>(x[i]).bits;
    back[i] = to_float(from_float<SCALAR>(x[i]));
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    (folder / "kernels.cu").write_text(SOURCE)
    return lambda dtype="bfloat16": Program(str(folder / "beside.py"), "kernels.cu", {"SCALAR": scalar_name(dtype)})


@pytest.mark.parametrize("descending", [False, True])
def test_blocks_sum_rows(emulated, program, rng, descending):
    x = rng.integers(-9, 9, (3, 100)).astype(ml_dtypes.bfloat16)
    y = np.zeros(3, x.dtype)
    with emulated(descending=descending):
        program().kernel("row_sums")(3, 64, (x, y, np.int32(100)))
    np.testing.assert_array_equal(y, x.astype(np.float32).sum(axis=1).astype(y.dtype))


def test_a_missing_barrier_gives_wrong_numbers(emulated, program):
    x = np.arange(64, dtype=np.float32)
    for barrier, right in ((1, True), (0, False)):
        y = x.copy()
        with emulated():
            program().kernel("reversed")(1, 64, (y, np.int32(barrier)), shared_bytes=256)
        assert np.array_equal(y, x[::-1]) == right
    assert np.isnan(y).any()  # shared memory is filled with NaN


def test_dynamic_shared_memory_ends_where_it_was_asked_to(emulated, program, cuda_host):
    with emulated(), pytest.raises(cuda_host.KernelError, match="out of bounds"):
        program().kernel("reversed")(1, 64, (np.zeros(64, np.float32), np.int32(1)), shared_bytes=128)


def test_lanes_exchange_values(emulated, program):
    x = np.zeros(192, np.int32)
    with emulated():
        program().kernel("lanes")(1, 32, (x,))
    lane = np.arange(32)
    rows = x.reshape(6, 32)
    np.testing.assert_array_equal(rows[0], 5)
    np.testing.assert_array_equal(rows[1], np.maximum(lane - 1, 0))
    np.testing.assert_array_equal(rows[2], np.where(lane % 8 + 3 < 8, lane + 3, lane))
    np.testing.assert_array_equal(rows[3], lane ^ 2)
    np.testing.assert_array_equal(rows[4].view(np.uint32), 0xAAAAAAAA)
    np.testing.assert_array_equal(rows[5], np.where(lane < 16, lane ^ 1, 0))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (0, "wrote past the end of an array"),
        (1, r"block \(0, 0, 0\), thread 0: touches the address .* past the end of argument 0"),
        (2, "deadlock .* 31 of 32 threads wait at __syncthreads .* 1 of 32 threads have ended"),
        (3, "thread 4: an address that is not aligned, or an index out of an array's bounds"),
        (4, "thread 0: an address that is not aligned"),
        (5, "thread 3: an (integer divided by zero|address that is not aligned)"),
        (6, "lanes of a warp meet at __shfl_sync and at __syncwarp"),
    ],
)
def test_what_a_kernel_does_wrong_is_said(emulated, program, cuda_host, what, message):
    x = np.zeros(33 if what == 4 else 32 - (what == 0), np.float32)
    with emulated(), pytest.raises(cuda_host.KernelError, match=message):
        program().kernel("wrong")(1, 32, (x, np.int32(what)))
    with emulated():  # and the next launch is none the worse
        program().kernel("wrong")(1, 32, (x, np.int32(99)))


def test_static_shared_memory_is_not_kept_from_block_to_block(emulated, program):
    x = np.zeros(32, np.float32)
    with emulated():
        program().kernel("wrong")(1, 32, (x, np.int32(99)))
        program().kernel("wrong")(1, 32, (x, np.int32(7)))
    assert np.isnan(x).all()  # though the first launch left numbers there


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
def test_rounding_to_16_bits_is_numpys(emulated, program, rng, dtype):
    dtype = np.dtype(dtype)
    x = np.concatenate(
        [rng.standard_normal(500) * 10.0 ** rng.integers(-9, 9, 500), [0, -0.0, np.inf, -np.inf, 7e4, 1e-9]]
    )
    x = x.astype(np.float32)
    y, back = np.zeros(len(x), np.uint16), np.zeros_like(x)
    with emulated():
        program(dtype).kernel("halves")(1, len(x), (x, y, back))
    with np.errstate(over="ignore"):
        rounded = x.astype(dtype)
    np.testing.assert_array_equal(y, rounded.view(np.uint16))
    np.testing.assert_array_equal(back, rounded.astype(np.float32))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("x", "y"), r"takes 3 arguments, \*cV2 \*V2 i4, and got 2"),
        (("x", "y", 3), "argument 2 of row_sums is a int, which has no C type"),
        (("x", "y", np.int64(3)), "argument 2 of row_sums is a numpy.int64; the kernel takes i4"),
        (("x", np.zeros(3), np.int32(3)), "argument 1 of row_sums is an array of float64"),
        (("x", None, None), "argument 2 of row_sums is None"),
    ],
)
def test_arguments_are_held_to_the_declaration(emulated, program, cuda_host, args, message):
    x = np.zeros(3, ml_dtypes.bfloat16)
    args = tuple(x.copy() if isinstance(arg, str) else arg for arg in args)
    with emulated(), pytest.raises(cuda_host.KernelError, match=message):
        program().kernel("row_sums")(1, 64, args)


def test_a_kernel_that_is_not_there(emulated, program, cuda_host):
    with emulated(), pytest.raises(cuda_host.KernelError, match="has no kernel nowhere"):
        program().kernel("nowhere")(1, 32, ())


@pytest.mark.parametrize("grid", [(1, 65536), (1, 1, 65536)])
def test_a_grid_is_as_large_as_a_card_takes_it(emulated, program, cuda_host, grid):
    with emulated(), pytest.raises(cuda_host.KernelError, match="y and z go to 65535"):
        program().kernel("lanes")(grid, 32, (np.zeros(192, np.int32),))


def test_a_grid_without_blocks_is_not_launched(emulated, program):
    with emulated() as emulator:
        program().kernel("lanes")((0, 4), 32, ())
    assert emulator.launches == []
