"""The emulator of Hopper's instructions: products and copies as the PTX ISA has them, and what it won't let pass."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from minilm_kernels.cuda import Program, budgets, nvrtc, scalar_name
from minilm_kernels.cuda.tensor_map import tensor_map

# One warpgroup multiplies a 64 x 128 by b, which is COLUMNS x 128 (transposed: 128 x COLUMNS), and copies the result's
# first 64 columns out. What it does wrong, if asked to, is one line each.
SOURCE = """#include "sm90.cuh"

constexpr int PANEL = 128 * (TRANSPOSED ? 128 : COLUMNS), PANELS = TRANSPOSED ? (COLUMNS + 63) / 64 : 2;  // of b
constexpr int COUNT = COLUMNS / 2, BYTES = 16384 + PANELS * PANEL;

extern "C" __global__ void __launch_bounds__(128, 1) product(
    const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map,
    const __grid_constant__ TensorMap out_map, float* d_out, int wrong) {
    DYNAMIC_SHARED(unsigned char, memory);
    u32 a = shared_offset(memory), b = a + 16384, full = a + BYTES;
    int thread = threadIdx.x;
    if (thread == 0) {
        if (wrong != 1) barrier_init(full, 1);
        if (wrong != 2) barrier_init_fence();
    }
    __syncthreads();
    if (thread == 0) {
        barrier_arrive_expect(full, wrong == 3 ? BYTES + 1 : BYTES);
        for (int panel = 0; panel < 2; ++panel) copy_box_in(a + panel * 8192, &a_map, full, panel * 64, 0, 0, 0);
        for (int panel = 0; panel < PANELS; ++panel) copy_box_in(b + panel * PANEL, &b_map, full, panel * 64, 0, 0, 0);
        if (wrong == 4) barrier_arrive(full);
    }
    if (wrong != 5) barrier_wait(full, 0);
    __syncthreads();

    float d[COUNT];
    for (int i = 0; i < COUNT; ++i) d[i] = 1;
    if (wrong != 6) wgmma_fence();
#if TRANSPOSED
    for (int k = 0; k < 8; ++k) {
        int row = thread / 32 * 16 + thread % 32 / 4, column = k * 16 + thread % 4 * 2;
        u32 w[4];
        for (int i = 0; i < 4; ++i) {
            u32 at = swizzled(row + i % 2 * 8, (column + i / 2 * 8) % 64);
            w[i] = *reinterpret_cast<u32*>(memory + (column + i / 2 * 8) / 64 * 8192 + at);
        }
        wgmma_transposed(SCALAR{}, d, w[0], w[1], w[2], w[3], matrix_descriptor(b + k * 2048, PANEL));
    }
#else
    for (int k = 0; k < 8; ++k) {
        u32 panel = k / 4, inside = k % 4 * 32;
        u64 from = matrix_descriptor(wrong == 7 && thread == 77 ? b : a + panel * 8192 + inside, 0);
        wgmma(SCALAR{}, d, from, matrix_descriptor(b + panel * PANEL + inside, 0), 1);
    }
#endif
    wgmma_commit();
    if (wrong == 8 && thread == 0) copy_box_in(b, &b_map, full, 0, 0, 0, 0);
    if (wrong != 9) wgmma_wait<0>();
    for (int i = 0; i < COUNT; ++i) d_out[i * 128 + thread] = d[i];

    // Where a was, the result; 64 x 64.
    int row = thread / 32 * 16 + thread % 32 / 4;
    for (int i = 0; i < 32; i += 2) {
        u32 at = swizzled(row + i / 2 % 2 * 8, i / 4 * 8 + thread % 4 * 2);
        *reinterpret_cast<u32*>(memory + at) = two_bits(SCALAR{}, d[i], d[i + 1]);
    }
    if (wrong != 10 || thread != 99) async_proxy_fence();
    named_barrier_sync(1, 128);
    if (thread == 0) {
        copy_box_out(&out_map, a, 0, 0, 0, 0);
        if (wrong != 11) copies_out_commit();
        copies_out_wait_read();
    }
}

extern "C" __global__ void __launch_bounds__(128, 1) serial(const SCALAR* x, float* d_out, int n) {
    DYNAMIC_SHARED(unsigned char, memory);
    u32 a = shared_offset(memory);
    float d[32];
    for (int i = 0; i < 32; ++i) d[i] = to_float(x[i]);
    wgmma_fence();
    for (int k = 0; k < 2; ++k) {
        wgmma(SCALAR{}, d, matrix_descriptor(a, 0), matrix_descriptor(a, 0), 1);
        for (int i = 0; i < 32; ++i) d[i] *= 2;  // between products: the compiler has to wait for each
    }
    wgmma_commit();
    wgmma_wait<0>();
    for (int i = 0; i < 32; ++i) d_out[i * 128 + threadIdx.x] = d[i];
}
"""
F16, BF16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
# The widths of products that attention asks for: of scores (as many as a block has keys), and of values, which lie
# transposed (a head's size). 96 is a panel and a half.
WIDTHS = [
    *[(columns, False) for columns in (64, 80, 96, 128, 176)],
    *[(columns, True) for columns in (64, 96, 128, 192, 256)],
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("sources") / "product.cu"
    path.write_text(SOURCE)
    return path


def operands(rng, dtype, transposed, rows, columns):
    """a (rows x 128), b (columns x 128, or transposed), and where the result goes: by the copy engine, by registers."""
    a = rng.integers(-8, 9, (1, 1, rows, 128)).astype(dtype)
    b = rng.integers(-8, 9, (1, 1, 128, columns) if transposed else (1, 1, columns, 128)).astype(dtype)
    return a, b, np.zeros((1, 1, rows, 64), dtype), np.zeros((columns // 2, 128), np.float32)


def launch(path, a, b, out, d, transposed, wrong=0):
    columns = 2 * len(d)
    macros = {"SCALAR": scalar_name(a.dtype), "TRANSPOSED": int(transposed), "COLUMNS": columns}
    panels = 128 * -(-columns // 64) if transposed else 2 * columns  # rows of 128 bytes
    maps = tensor_map(a, 64), tensor_map(b, 128 if transposed else columns), tensor_map(out, 64)
    kernel = Program(path, path.name, macros, specific=True).kernel("product")
    kernel(1, 128, (*maps, d, np.int32(wrong)), shared_bytes=16384 + 128 * panels + 8)


@pytest.fixture
def product(path, emulated, rng):
    def run(dtype=F16, transposed=False, wrong=0, rows=64, columns=64, **settings):
        """(a, b, 1 + a b in the threads' registers, the same as it was copied out)."""
        a, b, out, d = operands(rng, dtype, transposed, rows, columns)
        with emulated(capability=90, **settings):
            launch(path, a, b, out, d, transposed, wrong)
        a, b = (x[0, 0].astype(np.float32) for x in (a, b))
        return a, b if transposed else b.T, d, out[0, 0]

    return run


@pytest.mark.parametrize(
    ("dtype", "transposed", "rows", "descending"),
    [
        (F16, False, 64, False),
        (F16, False, 50, True),
        (BF16, True, 50, False),
        (BF16, True, 64, True),
    ],
    ids=str,
)
def test_a_product_through_the_copy_engine(product, dtype, transposed, rows, descending):
    is_product(*product(dtype, transposed, rows=rows, descending=descending))


@pytest.mark.parametrize(("columns", "transposed"), [(176, False), (96, True), (192, True)])
def test_wide_products(product, columns, transposed):
    is_product(*product(BF16, transposed, columns=columns))


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "columns", "transposed"),
    [(F16, 64, False), (F16, 64, True), *[(BF16, *width) for width in WIDTHS]],
    ids=str,
)
def test_the_card_agrees_with_the_emulator(path, rng, dtype, columns, transposed):
    cupy = pytest.importorskip("cupy")
    if cupy.cuda.Device().compute_capability != "90":
        pytest.skip("the instructions are Hopper's")
    a, b, out, d = operands(rng, dtype, transposed, 50, columns)
    on_card = [cupy.asarray(x) for x in (a, b, out, d)]
    launch(path, *on_card, transposed)
    d, out = cupy.asnumpy(on_card[3]), cupy.asnumpy(on_card[2])
    is_product(*(x[0, 0].astype(np.float32) for x in (a, b if transposed else b.swapaxes(2, 3))), d, out[0, 0])


def is_product(a, b, d, out):
    """Asserts that d and out are 1 + a b, d as the threads' registers have it, with rows of 1 beyond a's end."""
    rows, expected = len(a), 1 + a @ b
    np.testing.assert_array_equal(out, expected[:, :64].astype(out.dtype))
    thread, i = np.arange(128)[None], np.arange(len(d))[:, None]
    row, column = thread // 32 * 16 + thread % 32 // 4 + i // 2 % 2 * 8, i // 4 * 8 + thread % 4 * 2 + i % 2
    whole = np.ones((64, b.shape[1]), np.float32)  # rows beyond the end arrive as zeros
    whole[:rows] = expected
    np.testing.assert_array_equal(d, whole[row, column])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (1, "an mbarrier that was not initialised"),
        (2, "used before barrier_init_fence"),
        (3, "deadlock .* 128 of 128 threads wait at an mbarrier"),
        (4, "more arrivals at an mbarrier than it counts"),
        (6, "wgmma without wgmma.fence"),
        (7, "thread 77: the threads of a warpgroup give different operands"),
        (8, "a box is copied onto shared memory that a wgmma in flight reads"),
        (10, "before all threads of the warpgroup have called async_proxy_fence"),
        (11, "waited for that were not committed"),
    ],
)
def test_what_is_undefined_is_an_error(product, cuda_host, wrong, message):
    with pytest.raises(cuda_host.KernelError, match=message):
        product(wrong=wrong)


@pytest.mark.parametrize("wrong", [5, 9], ids=["copy", "product"])
def test_what_is_not_waited_for_is_not_there(product, wrong):
    _, _, d, _ = product(wrong=wrong)
    assert np.isnan(d).all()


def test_products_that_the_compiler_makes_wait_are_found(path):
    try:
        nvrtc.library()
    except nvrtc.NvrtcMissing as error:
        pytest.skip(str(error))
    kernels = {"product": 128, "serial": 128}
    variant = budgets.Variant(path, {"SCALAR": "bf16", "TRANSPOSED": 0, "COLUMNS": 64}, ("sm_90a",), kernels)
    found = budgets.complaints(variant, "sm_90a")
    assert any("(C75" in complaint and "'serial'" in complaint for complaint in found)
