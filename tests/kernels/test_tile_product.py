"""The product of two tiles in registers, against NumPy, for every step and depth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba")

from minilm_kernels.jit import jit
from minilm_kernels.tile_product import COLUMNS, ROWS, multiply_tile


@jit
def _multiply(c, at_c, c_row, a, at_a, a_row, a_inner, b, at_b, b_inner, depth, accumulate):
    multiply_tile(c, at_c, c_row, a, at_a, a_row, a_inner, b, at_b, b_inner, depth, accumulate)


@given(
    depth=st.integers(0, 40),
    spare=st.tuples(*[st.integers(0, 9)] * 3),
    offsets=st.tuples(*[st.integers(0, 20)] * 3),
    is_transposed=st.booleans(),
    accumulate=st.booleans(),
)
def test_against_numpy(depth, spare, offsets, is_transposed, accumulate):
    random = np.random.default_rng(0)
    at_a, at_b, at_c = offsets
    a_row, a_inner = (1, ROWS + spare[0]) if is_transposed else (depth + spare[0], 1)
    b_inner, c_row = COLUMNS + spare[1], COLUMNS + spare[2]
    a = random.standard_normal(at_a + (depth + spare[0] + ROWS) * (ROWS + depth + spare[0]) + 1, dtype=np.float32)
    b = random.standard_normal(at_b + (depth + 1) * b_inner, dtype=np.float32)
    c = random.standard_normal(at_c + ROWS * c_row, dtype=np.float32)
    before = c.copy()
    left = np.array([[a[at_a + i * a_row + k * a_inner] for k in range(depth)] for i in range(ROWS)]).reshape(ROWS, -1)
    right = np.array([b[at_b + k * b_inner :][:COLUMNS] for k in range(depth)]).reshape(-1, COLUMNS)
    _multiply(c, at_c, c_row, a, at_a, a_row, a_inner, b, at_b, b_inner, depth, accumulate)
    expected = before.astype(np.float64)
    for i in range(ROWS):
        row = slice(at_c + i * c_row, at_c + i * c_row + COLUMNS)
        expected[row] = left[i].astype(np.float64) @ right + (before[row] if accumulate else 0)
    np.testing.assert_allclose(c, expected, atol=2e-5)
    inside = np.zeros(c.size, bool)
    for i in range(ROWS):
        inside[at_c + i * c_row :][:COLUMNS] = True
    np.testing.assert_array_equal(c[~inside], before[~inside])
