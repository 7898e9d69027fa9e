"""Matrix products: every layout on every device, what cuBLAS is asked for, and TF32."""

from __future__ import annotations

import fake_cupy.cublas
import ml_dtypes
import numpy as np
import pytest
from minilm_kernels.products import is_tf32, matmul, matmul_into, tf32
from minilm_kernels.rows import empty_rows

from minilm import backend

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype("float32"), np.dtype("float64"), np.dtype("float16"), BFLOAT16]
LAYOUTS = {  # (of arrays of either library)
    "transposed": lambda x: x.swapaxes(-1, -2).copy().swapaxes(-1, -2),
    "strided rows": lambda x: x.repeat(2, axis=-2)[..., ::2, :],
    "strided columns": lambda x: x.repeat(2, axis=-1)[..., ::2],
    "reversed": lambda x: x[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
    "one row": lambda x: backend.array_module(x).broadcast_to(x[..., :1, :], x.shape),
    "heads inside": lambda x: x.swapaxes(1, 2).copy().swapaxes(1, 2),
}
SHAPES = [
    ((3, 4), (4, 5)),
    ((1, 1), (1, 1)),
    ((5, 1), (1, 7)),
    ((1, 6), (6, 1)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 3, 4, 5), (2, 3, 5, 6)),
    ((2, 1, 4, 5), (2, 3, 5, 6)),
    ((2, 3, 4, 5), (3, 5, 6)),
    ((12, 1, 4, 2), (1, 11, 2, 3)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4,)),
    ((4,), (4,)),
    ((0, 4), (4, 5)),
    ((2, 3, 0), (2, 0, 5)),
    ((0, 3, 4), (1, 4, 5)),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_products_of_all_shapes(device, rng, left, right, dtype):
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in (left, right))
    y = backend.to_numpy(matmul(backend.to_device(a, device), backend.to_device(b, device)))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert y.dtype == (np.float64 if dtype == np.float64 else dtype)
    assert y.shape == exact.shape
    np.testing.assert_allclose(y.astype(np.float64), exact, rtol=4 * ml_dtypes.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("left", LAYOUTS)
def test_products_of_all_layouts(device, rng, left, dtype):
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 3, 4, 6), (2, 3, 6, 5)))
    a = LAYOUTS[left](backend.to_device(a, device))
    for layout in LAYOUTS.values():
        b = layout(backend.to_device(b, device))
        y, *inputs = (backend.to_numpy(x).astype(np.float64) for x in (matmul(a, b), a, b))
        np.testing.assert_allclose(y, inputs[0] @ inputs[1], rtol=4 * ml_dtypes.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("integers", [np.int64, np.int8, np.bool_])
def test_integers_beside_floats_make_no_float64(device, rng, dtype, integers):
    a, b = rng.integers(0, 2, (3, 4)).astype(integers), rng.standard_normal((4, 5)).astype(dtype)
    for one, other in ((a, b), (b.T, a.T)):
        y = backend.to_numpy(matmul(backend.to_device(one, device), backend.to_device(other, device)))
        assert y.dtype == dtype
        exact = one.astype(np.float64) @ other.astype(np.float64)
        np.testing.assert_allclose(y.astype(np.float64), exact, rtol=4 * ml_dtypes.finfo(dtype).eps, atol=1e-5)
    assert matmul(a.astype(np.int32), b.astype(np.int64)).dtype == np.int64


def _calls(cupy, left, right, dtype=np.float16):
    """What cuBLAS was asked for, (compute type, number of products) each, and how many arrays were made for it."""
    fake_cupy.cublas.calls.clear()
    made = []
    original = cupy.ascontiguousarray
    cupy.ascontiguousarray = lambda x: made.append(x) or original(x)
    try:
        matmul(*(f(cupy.zeros(shape, dtype)) for f, shape in (left, right)))
    finally:
        cupy.ascontiguousarray = original
    return list(fake_cupy.cublas.calls), len(made)


def _as_is(x):
    return x


def test_low_precision_is_summed_up_in_float32_by_one_call(cuda_standin):
    for dtype in (np.float16, BFLOAT16, np.float32):
        assert _calls(cuda_standin, (_as_is, (2, 3, 4, 5)), (_as_is, (2, 3, 5, 6)), dtype) == ([(68, 6)], 0)
    assert _calls(cuda_standin, (_as_is, (4, 5)), (_as_is, (5, 6)), np.float64) == ([(70, 1)], 0)


def test_operands_that_can_be_read_in_place_are_not_copied(cuda_standin):
    def transposed(x):
        return x.swapaxes(-1, -2)

    def heads(x):
        return x.swapaxes(1, 2)

    rows = (_as_is, (2, 3, 4, 5))
    assert _calls(cuda_standin, rows, (transposed, (2, 3, 6, 5))) == ([(68, 6)], 0)
    assert _calls(cuda_standin, (transposed, (2, 3, 5, 4)), (transposed, (2, 3, 6, 5))) == ([(68, 6)], 0)
    assert _calls(cuda_standin, rows, (_as_is, (5, 6))) == ([(68, 6)], 0)  # one matrix for all
    assert _calls(cuda_standin, rows, (_as_is, (3, 5, 6))) == ([(68, 3)] * 2, 0)  # no stride goes through both axes
    assert _calls(cuda_standin, (heads, (2, 4, 3, 5)), (heads, (2, 5, 3, 6))) == ([(68, 3)] * 2, 0)
    assert _calls(cuda_standin, (lambda x: x[..., :5], (2, 3, 4, 9)), (_as_is, (2, 3, 5, 6))) == ([(68, 6)], 0)
    # Gaps between the elements of a row: cuBLAS knows none.
    assert _calls(cuda_standin, (lambda x: x[..., ::2], (2, 3, 4, 10)), (_as_is, (2, 3, 5, 6))) == ([(68, 6)], 1)
    # Copies instead of a call for each of 20 places.
    assert _calls(cuda_standin, (_as_is, (20, 1, 4, 5)), (_as_is, (1, 30, 5, 6))) == ([(68, 600)], 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_rows_that_begin_at_multiples_of_16_bytes(cuda_standin, rng, dtype):
    a, b = (cuda_standin.asarray(rng.standard_normal(shape).astype(dtype)) for shape in ((6, 4), (4, 13)))
    y = matmul(a, b, align_rows=True)
    assert y.strides == (-(-13 * dtype.itemsize // 16) * 16, dtype.itemsize)
    np.testing.assert_array_equal(y.get(), matmul(a, b).get())
    g = cuda_standin.asarray(rng.standard_normal((6, 13)).astype(dtype))
    fake_cupy.cublas.calls.clear()
    np.testing.assert_array_equal(matmul(y.T, a).get(), matmul(y.copy().T, a).get())
    np.testing.assert_array_equal(matmul(y, b.T).get(), matmul(y.copy(), b.T).get())
    assert len(fake_cupy.cublas.calls) == 4
    for shape in ((1, 4), (0, 4)):  # there is no second row
        assert matmul(a[: shape[0]], b, align_rows=True).shape == (shape[0], 13)
    assert (y * g).shape == (6, 13)


@pytest.mark.parametrize("wide", [False, True], ids=["own dtype", "float32"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_products_into_arrays_and_added_to_them(device, rng, dtype, wide):
    a, b = (backend.to_device(rng.standard_normal(shape).astype(dtype), device) for shape in ((5, 300), (7, 300)))
    to = np.float32 if wide and dtype.itemsize == 2 else dtype
    exact = backend.to_numpy(a).astype(np.float64) @ backend.to_numpy(b).astype(np.float64).T
    for make in (
        lambda xp: xp.empty((5, 7), to),
        lambda xp: empty_rows(xp, 5, 7, to),
        lambda xp: xp.empty((9, 7), to)[2:7],
    ):
        out = make(backend.array_module(a))
        out[...] = np.nan  # must not matter
        matmul_into(out, a, b.T)
        limits = {"rtol": 4 * ml_dtypes.finfo(to).eps, "atol": 300 * ml_dtypes.finfo(to).eps}
        np.testing.assert_allclose(backend.to_numpy(out).astype(np.float64), exact, **limits)
        matmul_into(out, a, b.T, add=True)
        np.testing.assert_allclose(backend.to_numpy(out).astype(np.float64), 2 * exact, **limits)


def test_products_into_arrays_are_one_call_without_a_copy(cuda_standin):
    x, weight, out = (cuda_standin.zeros(shape, np.float16) for shape in ((6, 3), (13, 3), (6, 16)))
    fake_cupy.cublas.calls.clear()
    matmul_into(out[:, :13], x, weight.T)
    matmul_into(cuda_standin.zeros((13, 3), np.float32), out[:, :13].T, x, add=True)
    assert fake_cupy.cublas.calls == [(68, 1)] * 2


def test_nothing_is_multiplied_into_empty_arrays(device):
    xp = backend.array_module(backend.to_device(np.ones(1), device))
    for add, expected in ((True, 1.0), (False, 0.0)):
        out = xp.ones((2, 3), np.float32)
        matmul_into(out, xp.ones((2, 0), np.float32), xp.ones((0, 3), np.float32), add=add)
        assert (out == expected).all()
    matmul_into(out[:0], xp.ones((0, 4), np.float32), xp.ones((4, 3), np.float32))


def test_what_a_product_can_not_be_written_to(device):
    x = backend.to_device(np.ones((4, 4), np.float32), device)
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(4, 4\) into \(4, 3\); expected"):
        matmul_into(x[:, :3], x, x)
    with pytest.raises(ValueError, match="lie side by side"):
        matmul_into(x.T, x, x)
    for a, out in ((x, x.astype(np.float64)), (x, x.astype(np.float16)), (x.astype(int), x)):
        with pytest.raises(TypeError, match="expected one floating dtype, or out in float32"):
            matmul_into(out, a, a)
    with pytest.raises(TypeError, match="of float32 and float16 into float32"):
        matmul_into(x, x, x.astype(np.float16))


def test_tf32_holds_inside_its_block_for_float32_alone(cuda_standin):
    rows, columns = (_as_is, (4, 5)), (_as_is, (5, 6))
    assert not is_tf32()
    with tf32():
        assert is_tf32()
        assert _calls(cuda_standin, rows, columns, np.float32) == ([(77, 1)], 0)
        assert _calls(cuda_standin, rows, columns, np.float16) == ([(68, 1)], 0)
        assert _calls(cuda_standin, rows, columns, np.float64) == ([(70, 1)], 0)
        with tf32(False):
            assert _calls(cuda_standin, rows, columns, np.float32) == ([(68, 1)], 0)
    assert _calls(cuda_standin, rows, columns, np.float32) == ([(68, 1)], 0)


@pytest.mark.gpu
def test_tf32_rounds_inputs_on_a_card(rng):
    a, b = (rng.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    on_card = [backend.to_device(x, "cuda") for x in (a, b)]
    plain = np.abs(backend.to_numpy(matmul(*on_card)) - exact).max()
    with tf32():
        rounded = np.abs(backend.to_numpy(matmul(*on_card)) - exact).max()
    assert plain < 1e-4
    assert 1e-3 < rounded < 0.2


def test_shapes_that_do_not_fit(device):
    a, b = (backend.to_device(np.ones(shape, np.float32), device) for shape in ((2, 3), (4, 5)))
    with pytest.raises(ValueError, match=r"matmul|mismatch"):
        matmul(a, b)


def test_integers_and_two_dtypes(device):
    a, b = (backend.to_device(x, device) for x in (np.arange(6).reshape(2, 3), np.arange(3)))
    assert matmul(a, b).tolist() == [5, 14]
    y = matmul(a.astype(np.float32), b.astype(np.float64))
    assert y.dtype == np.float64
    assert y.tolist() == [5, 14]
