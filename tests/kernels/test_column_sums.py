"""column_sums: every implementation like NumPy's sum; of 16 bits summed in float32."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from minilm_kernels import column_sums, implementations

ALL = [entry.name for entry in implementations("column_sums", device="cpu")]


@pytest.mark.parametrize("implementation", ALL)
@given(rows=st.integers(0, 200), columns=st.integers(0, 70), transposed=st.booleans())
def test_is_the_sum(implementation, rows, columns, transposed):
    x = np.random.default_rng(rows).standard_normal((rows, columns))
    x = np.asfortranarray(x) if transposed else x
    found = column_sums(x, implementation=implementation)
    np.testing.assert_allclose(found, x.sum(axis=0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    found = column_sums(np.full((4099, 3), 1, dtype))  # counted up in 16 bits it would stop at 2048, or at 256
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.full(3, 4099).astype(dtype))


def test_nan_stays_in_its_column():
    x = np.zeros((5, 4), np.float32)
    x[3, 1] = np.nan
    np.testing.assert_array_equal(np.isnan(column_sums(x)), [False, True, False, False])


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"expected \(N, C\)"):
        column_sums(np.zeros(3))
    with pytest.raises(TypeError, match="floating"):
        column_sums(np.zeros((2, 3), int))
