"""Block masks: which blocks a mask empties or fills, and what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from minilm_kernels.attention.mods import and_masks, block_mask, catalogue, check_block_mask, or_masks


@given(T=st.integers(0, 150), S=st.integers(0, 200), window=st.integers(1, 120), stride=st.integers(1, 3))
def test_block_states(T, S, window, stride):
    seen = lambda b, h, q, k: (q - k < window + 10 * h) & (k % stride == 0) | (k < 50 * b)
    mask = block_mask(seen, 2, 2, T, S)
    dense = _padded(mask.dense(), False)
    inside = _padded(np.ones((2, 2, T, S), bool), False)
    counts, whole = (x.reshape(2, 2, x.shape[2] // 48, 48, x.shape[3] // 48, 48).sum((3, 5)) for x in (dense, inside))
    np.testing.assert_array_equal(mask.states, np.where(counts == 0, 0, np.where(counts == whole, 2, 1)))
    assert mask.states.dtype == np.uint8
    assert mask.sparsity() == (pytest.approx((counts == 0).mean()) if counts.size else 0)


def _padded(mask, value):
    T, S = mask.shape[2:]
    return np.pad(mask, ((0, 0), (0, 0), (0, -T % 48), (0, -S % 48)), constant_values=value)


def test_block_masks_of_many_keys():
    mask = block_mask(catalogue.sliding_window(1000), None, None, 100, 7000)
    assert mask.states.shape == (1, 1, 3, 146)
    np.testing.assert_array_equal(mask.states[0, 0].any(axis=0), np.arange(146) < 3)
    mask = block_mask(lambda b, h, q, k: k >= 6900, None, None, 10, 7000)
    np.testing.assert_array_equal(
        mask.states[0, 0, 0], np.where(np.arange(146) < 143, 0, np.where(np.arange(146) == 143, 1, 2))
    )


def test_block_masks_on_any_number_of_threads(same_bits):
    same_bits(lambda: block_mask(catalogue.dilated(30, 5), 2, 3, 500, 500).states)


def test_what_a_block_mask_says():
    mask = block_mask(catalogue.causal(), None, None, 200, 200)
    assert repr(mask).startswith(
        "BlockMask(mask, (B, H, T, S)=(None, None, 200, 200), blocks of 48: 10 full, 5 partial"
    )
    assert repr(mask).endswith("10 empty; 40% skipped)")
    assert str(mask).splitlines()[1:] == ["░····", "█░···", "██░··", "███░·", "████░"]
    mask.check_fits(7, 5, 200, 200)
    with pytest.raises(ValueError, match=r"attention has \(1, 1, 200, 100\); make it with block_mask\(mask_mod, 1, 1"):
        mask.check_fits(1, 1, 200, 100)
    check_block_mask(None, 1, 1, 2, 2)
    with pytest.raises(ValueError, match="attention has"):
        check_block_mask(mask, 1, 1, 2, 2)
    with pytest.raises(
        TypeError, match=r"block_mask is <function .*; expected what block_mask\(mask_mod, B, H, T, S\)"
    ):
        check_block_mask(catalogue.causal(), 1, 1, 2, 2)
    with pytest.raises(ValueError, match="the mask depends on h, and H is None"):
        block_mask(lambda b, h, q, k: k < h, 1, None, 9, 9)
    with pytest.raises(ValueError, match=r"T is -1; expected a whole number"):
        block_mask(catalogue.causal(), None, None, -1, 9)
    with pytest.raises(IndexError, match="index 1 runs from 0 to 99"):
        block_mask(catalogue.document_mask(np.zeros((2, 50), int)), 2, None, 50, 100)
    with pytest.raises(ValueError, match="no masks were given"):
        and_masks()
    with pytest.raises(TypeError, match="3 is not a mask_mod"):
        or_masks(catalogue.causal(), 3)
