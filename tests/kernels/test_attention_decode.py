"""Attention of a few queries to many keys (the decode kernel) against the float64 reference."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels.attention.decode_cpu import SERIAL_WORK, decode_attention

NONE = np.zeros((0, 2), np.int64), np.zeros((0, 64), np.int64)
LENGTHS = [0, 1, 7, 8, 9, 63, 64, 100, 511, 512, 513, 1100]


def _inputs(B, H, Hk, T, S, D, seed=0, layout="contiguous"):
    random = np.random.default_rng(seed)
    return [
        _laid_out(random.standard_normal((B, heads, length, D)).astype(np.float32), layout)
        for heads, length in ((H, T), (Hk, S), (Hk, S))
    ]


def _laid_out(x, layout):
    """The same numbers in other memory; around those of a cache lies what must never be looked at."""
    if layout == "cache":  # the filled part of a longer one
        B, H, S, D = x.shape
        cache = np.full((B + 1, H + 1, S + 40, D + 3), np.nan, np.float32)
        cache[:B, :H, :S, :D] = x
        return cache[:B, :H, :S, :D]
    if layout == "projection":
        return np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)
    if layout == "strided":
        return np.repeat(x, 2, axis=-1)[..., ::2]
    if layout == "reversed":
        return np.ascontiguousarray(x[:, :, ::-1])[:, :, ::-1]
    if layout == "readonly":
        x.flags.writeable = False
    return x


def _expected(q, k, v, first, stop, scale, modify=lambda scores: scores):
    """In float64, from the definition; `modify` changes the (B, H, T, S) scores."""
    group = q.shape[1] // k.shape[1]
    q, k, v = q.astype(np.float64), *(np.repeat(x.astype(np.float64), group, axis=1) for x in (k, v))
    keys = np.arange(k.shape[2])
    seen = (keys >= first[..., None]) & (keys < stop[..., None])
    scores = np.where(seen[:, None], modify(scale * (q @ k.swapaxes(2, 3))), -np.inf)
    largest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isfinite(largest), largest, 0))
    total = weights.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        logsumexp = (largest + np.log(total))[..., 0]
    return weights / np.where(total == 0, 1, total) @ v, logsumexp


def _check(found, expected):
    """The largest error is at most 2e-6 of the largest value, and what is infinite is so in both."""
    for mine, exact in zip(found, expected):
        assert mine.shape == exact.shape
        assert mine.dtype == np.float32
        finite = np.isfinite(exact)
        np.testing.assert_array_equal(mine[~finite], exact[~finite])
        error = np.abs(mine[finite] - exact[finite]).max(initial=0)
        assert error <= 2e-6 * np.abs(exact[finite]).max(initial=1e-30)


def _causal(T, S):
    stop = np.clip(np.arange(T) + S - T + 1, 0, S)[None]
    return np.zeros_like(stop), stop


@settings(max_examples=60, deadline=None)
@given(
    B=st.integers(1, 3),
    heads=st.sampled_from([(1, 1), (3, 3), (4, 2), (8, 1)]),
    T=st.integers(1, 5),
    S=st.sampled_from(LENGTHS),
    D=st.sampled_from([1, 5, 8, 17, 32]),
    scale=st.sampled_from([0.3, 2.0, -1.0, 0.0]),
    layout=st.sampled_from(["contiguous", "cache", "projection", "strided", "reversed", "readonly"]),
    one_range=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_is_attention_within_any_ranges(B, heads, T, S, D, scale, layout, one_range, seed):
    q, k, v = _inputs(B, *heads, T, S, D, seed, layout)
    ends = np.sort(np.random.default_rng(seed).integers(0, S + 1, (2, 1 if one_range else B, T)), axis=0)
    before = [x.copy() for x in (q, k, v)]
    found = decode_attention(q, k, v, *ends, scale, *NONE)
    for array, copy in zip((q, k, v), before):
        np.testing.assert_array_equal(array, copy)
    out, logsumexp = _expected(q, k, v, *ends, scale)
    _check(found[:1], [out])
    # Its error is the scores', which cancel in it where one is large.
    size = abs(scale) * np.abs(q).max(initial=0) * np.abs(k).max(initial=0) * D
    np.testing.assert_allclose(found[1], logsumexp, rtol=2e-6, atol=2e-6 * max(1, size))


@pytest.mark.parametrize("D", [1, 2, 7, 8, 9, 16, 31, 64, 80, 100, 128, 256, 300])
def test_every_head_size(D):
    q, k, v = _inputs(1, 4, 2, 2, 700, D)
    _check(decode_attention(q, k, v, *_causal(2, 700), D**-0.5, *NONE), _expected(q, k, v, *_causal(2, 700), D**-0.5))


@pytest.mark.parametrize("sizes", [(1, 8, 8, 1, 4096, 128), (4, 12, 12, 1, 1024, 64), (1, 16, 4, 4, 2000, 64)])
def test_long_caches_on_all_threads(sizes):
    B, H, _, T, S, D = sizes
    assert B * H * T * S * D > SERIAL_WORK
    q, k, v = _inputs(*sizes, layout="cache")
    found = decode_attention(q, k, v, *_causal(T, S), D**-0.5, *NONE)
    _check(found, _expected(q, k, v, *_causal(T, S), D**-0.5))


@pytest.mark.parametrize("sizes", [(1, 16, 4, 4, 3000, 32), (2, 3, 3, 1, 5000, 64), (1, 1, 1, 1, 70000, 8)])
def test_same_bits_on_any_number_of_threads(sizes, same_bits):
    B, H, _, T, S, D = sizes
    assert B * H * T * S * D > SERIAL_WORK
    q, k, v = _inputs(*sizes)
    same_bits(lambda: decode_attention(q, k, v, *_causal(T, S), D**-0.5, *NONE))


@pytest.mark.parametrize("shape", [(0, 2, 1, 1, 3, 8), (2, 0, 1, 1, 3, 8), (2, 2, 1, 0, 3, 8), (2, 2, 1, 1, 0, 8)])
def test_empty_arrays(shape):
    q, k, v = _inputs(*shape)
    out, logsumexp = decode_attention(q, k, v, *_causal(shape[3], shape[4]), 1.0, *NONE)
    np.testing.assert_array_equal(out, np.zeros_like(q))
    np.testing.assert_array_equal(logsumexp, np.full(q.shape[:3], -np.inf))


def test_rows_that_see_no_key_give_zeros():
    q, k, v = _inputs(2, 2, 1, 3, 1300, 8)
    first = np.array([[0, 5, 1300], [600, 1300, 40]])
    stop = np.array([[0, 900, 1300], [600, 1300, 41]])
    out, logsumexp = decode_attention(q, k, v, first, stop, 0.5, *NONE)
    for b, h, t in np.ndindex(2, 2, 3):
        empty = first[b, t] == stop[b, t]
        assert bool(out[b, h, t].any()) != empty
        assert np.isneginf(logsumexp[b, h, t]) == empty
    np.testing.assert_allclose(out[1, :, 2], v[1, 0, 40][None].repeat(2, axis=0), rtol=1e-6)  # sees one key


def test_keys_out_of_range_are_never_looked_at():
    q, k, v = _inputs(1, 2, 1, 2, 1200, 20)
    first, stop = np.array([[3, 530]]), np.array([[517, 1191]])
    expected = decode_attention(q, k, v, first, stop, 0.2, *NONE)
    for x in (k, v):
        x[:, :, :3], x[:, :, 517:530], x[:, :, 1191:] = np.nan, np.inf, np.nan
    for mine, clean in zip(decode_attention(q, k, v, first, stop, 0.2, *NONE), expected):
        np.testing.assert_array_equal(mine, clean)


def test_nan_comes_out_where_it_went_in():
    q, k, v = _inputs(1, 3, 3, 2, 1100, 16)
    q[0, 0, 1, 3], k[0, 1, 1099, 0], v[0, 2, 700, 5] = np.nan, np.nan, np.nan
    out, logsumexp = decode_attention(q, k, v, *_causal(2, 1100), 0.25, *NONE)
    assert np.isnan(out[0, 0]).all(axis=1).tolist() == np.isnan(logsumexp[0, 0]).tolist() == [False, True]
    assert np.isnan(out[0, 1]).all(axis=1).tolist() == np.isnan(logsumexp[0, 1]).tolist() == [False, True]
    assert np.isnan(out[0, 2]).tolist() == [[d == 5 for d in range(16)]] * 2
    assert np.isfinite(logsumexp[0, 2]).all()


def test_large_scores_pick_one_key():
    k = np.tile(np.eye(64, dtype=np.float32), (1, 1, 20, 1))
    k *= np.where(np.arange(1280) == 777, 2, 1)[:, None].astype(np.float32)
    q = 1e37 * k[:, :, 777:778]
    out, logsumexp = decode_attention(q, k, k[:, :, ::-1], *_causal(1, 1280), 1.0, *NONE)
    np.testing.assert_array_equal(out, k[:, :, ::-1][:, :, 777:778])
    np.testing.assert_allclose(logsumexp, 4e37, rtol=1e-6)


def _modifier():
    """Adds table[0] * (b + 2h + 3t) + key / table[1] to each score, and hides every third key: its address."""
    LOG2_E = np.float32(math.log2(math.e))

    @numba.njit
    def modify(scratch, offset, width, b, h, t, j, masked, table):
        for c in range(width):
            added = table[0] * (b + 2 * h + 3 * t) + np.float32(j + c) / np.float32(table[1])
            scratch[offset + c] = scratch[offset + c] + np.float32(added) * LOG2_E
            if masked and (j + c) % 3 == 0:
                scratch[offset + c] = -np.inf

    scratch, table = numba.types.Array(numba.float32, 1, "C"), numba.types.Array(numba.int64, 1, "C")
    kernel_types = (scratch, *[numba.int64] * 6, numba.boolean, table)
    modify.compile(kernel_types)
    compiled = modify.overloads[kernel_types]
    return modify, compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def test_modifiers_change_scores_in_order():
    _kept, address = _modifier()  # the machine code lives as long as the kernel
    modifiers = np.array([[address, 0], [address, 0]])
    tables = np.zeros((2, 64), np.int64)
    tables[:, :2] = [[1, 300], [-2, 500]]
    q, k, v = _inputs(2, 4, 2, 3, 1100, 16)
    first, stop = np.array([[0, 1, 600], [9, 3, 511]]), np.array([[1100, 2, 1001], [1020, 4, 512]])

    def modify(scores):
        b, h, t, key = np.ogrid[tuple(slice(n) for n in scores.shape)]
        scores = scores - (b + 2 * h + 3 * t) + key / 300 + key / 500
        return np.where(key % 3 == 0, -np.inf, scores)

    found = decode_attention(q, k, v, first, stop, 0.25, modifiers, tables)
    expected = _expected(q, k, v, first, stop, 0.25, modify)
    assert np.isneginf(expected[1][1, :, 1]).all()  # of this row the only key is hidden
    _check(found, expected)


def test_results_are_laid_out_for_merging_heads():
    q, k, v = _inputs(2, 4, 2, 3, 11, 8)
    out, _ = decode_attention(q, k, v, *_causal(3, 11), 0.3, *NONE)
    assert np.shares_memory(out, out.swapaxes(1, 2).reshape(2, 3, 32))
