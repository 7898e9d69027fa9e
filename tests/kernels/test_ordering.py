"""Sorting by places: as NumPy's stable sort, whatever the dtype, the axis, the layout and the numbers."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from minilm_kernels.ordering import argsort, first_places

from minilm import backend

DTYPES = [
    "float16",
    ml_dtypes.bfloat16,
    "float32",
    "float64",
    "bool",
    "int8",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
]
SPECIAL = [0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1.0, -1.0, 1e-45, -1e-45, 3.4e38]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_places_are_those_of_a_stable_sort(data):
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9))
    if dtype.kind in "fV":
        some = st.one_of(st.sampled_from(SPECIAL), st.floats(-100, 100, width=32))
        with np.errstate(over="ignore"):
            x = data.draw(hnp.arrays(np.float32, shape, elements=some)).astype(dtype)
    else:
        x = data.draw(hnp.arrays(dtype, shape))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    x = x[..., ::-1] if data.draw(st.booleans()) else x
    before = x.tobytes()
    wide = x.astype(np.float64) if dtype.kind == "V" else x
    expected = np.argsort(wide, axis=axis, kind="stable")
    np.testing.assert_array_equal(argsort(x, axis), expected)
    k = data.draw(st.integers(0, x.shape[axis]))
    np.testing.assert_array_equal(first_places(x, k, axis), np.take(expected, np.arange(k), axis))
    assert x.tobytes() == before


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint32"])
def test_many_elements_many_of_them_equal(dtype, rng):
    x = (rng.standard_normal((3, 5000)) * 400).astype(np.int32).astype(dtype)
    expected = np.argsort(x, axis=-1, kind="stable")
    np.testing.assert_array_equal(argsort(x), expected)
    for k in (1, 50, 4999, 5000):
        np.testing.assert_array_equal(first_places(x, k), expected[:, :k])


def test_on_every_device(device, rng):
    x = rng.integers(0, 5, (4, 7)).astype(np.float32)
    given = backend.to_device(x, device)
    np.testing.assert_array_equal(backend.to_numpy(argsort(given, 0)), np.argsort(x, axis=0, kind="stable"))
    np.testing.assert_array_equal(backend.to_numpy(first_places(given, 3)), np.argsort(x, kind="stable")[:, :3])
